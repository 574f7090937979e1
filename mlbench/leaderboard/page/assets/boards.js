// Chooses a board, filters and sorts its rows, and hands them to the plot. All text is set as text.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PICKS = ["set", "track", "backbone", "loss", "place", "x", "colour"];
const FIELDS = [...PICKS, "method", "epochs", "gmacs", "log"];
const PAGE = 250; // rows drawn at first: drawing all of 2,000 takes longer than reading any
const state = { sort: "rank", down: false };
const fixed = (value, places) => (value === undefined ? "–" : value.toFixed(places));
const latency = (row) => row.ms[state.place];
const interval = (row) => (row.low !== undefined ? `[${fixed(row.low, 1)}, ${fixed(row.high, 1)}]`
  : row.sd !== undefined ? `± ${fixed(row.sd, 2)} (n=${row.seeds})` : "");

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// id, heading, value to sort by, what a cell shows, whether more comes first, kind of the cell.
const COLUMNS = [
  ["method", "method", (r) => r.method, (r) => [el("a", { href: DATA.methods[r.method].page }, r.method)]],
  ["rank", "#", (r) => r.rank, (r) => [r.worst > r.rank ? `${r.rank}–${r.worst}` : String(r.rank)], false, "number"],
  ["backbone", "backbone", (r) => r.backbone, (r) => [r.backbone]],
  ["loss", "loss", (r) => r.loss, (r) => [r.loss]],
  ["map", "mAP", (r) => r.map, mapCell, true, "number"],
  ["cf1", "CF1", (r) => r.cf1, (r) => [fixed(r.cf1, 2)], true, "number"],
  ["of1", "OF1", (r) => r.of1, (r) => [fixed(r.of1, 2)], true, "number"],
  ["gmacs", "GMACs", (r) => r.gmacs, (r) => [fixed(r.gmacs, 2)], false, "number"],
  ["head", "GMACs of head", (r) => r.head, (r) => [fixed(r.head, 3)], false, "number"],
  ["params", "params (M)", (r) => r.params, (r) => [fixed(r.params, 2)], false, "number"],
  ["ms", "latency (ms)", latency, (r) => [fixed(latency(r), 1)], false, "number"],
  ["size", "size", (r) => r.size, (r) => [String(r.size)], false, "number"],
  ["epochs", "epochs", (r) => r.epochs, (r) => [String(r.epochs)], false, "number"],
  ["variant", "variant", (r) => r.variant, (r) => [r.variant], false, "variant"],
  ["runs", "runs", (r) => r.runs.length, runCell, true],
].map(([id, title, value, show, down = false, kind = ""]) => ({ id, title, value, show, down, kind }));

function mapCell(row) {
  const { low, high } = board.span, at = (v) => (96 * (v - low)) / (high - low || 1);
  const [from, to] = bounds(row);
  return [`${fixed(row.map, 2)} `, el("span", { class: "range" }, interval(row)),
    drawn("svg", { class: "bar", viewBox: "-4 0 104 10", "aria-hidden": "true" },
      drawn("line", { x1: at(from), x2: at(to), y1: 5, y2: 5 }), drawn("circle", { cx: at(row.map), cy: 5, r: 3.5 }))];
}

function runCell(row) {
  return row.runs.flatMap(([id, page]) => [el("a", { href: page, "aria-label": `run ${id}` }, id.slice(0, 8)), " "]);
}

let board, shown = [], whole = false;

// ------------------------------------------------------------------------------------- the choice
function fill(select, options, keep) {
  select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  if (options.some(([value]) => String(value) === String(keep))) select.value = keep;
  state[select.id] = select.value;
}

function largest(boards) {
  return boards.reduce((a, b) => (b.rows.length > a.rows.length ? b : a));
}

function chooseBoard() {
  const sets = [...new Map(DATA.boards.map((b) => [b.set, b.known]))];
  fill($("set"), sets.map(([set, known]) => [set, known ? set : `${set} (incomplete or unknown)`]), state.set || largest(DATA.boards).set);
  const here = DATA.boards.filter((b) => b.set === state.set);
  const tracks = here.map((b) => [b.track, b.track]);
  fill($("track"), tracks, here.some((b) => b.track === state.track) ? state.track : largest(here).track);
  board = DATA.boards.find((b) => b.set === state.set && b.track === state.track);
  const ends = board.rows.flatMap(bounds);
  board.span ??= { low: ends.length ? Math.min(...ends) : 0, high: ends.length ? Math.max(...ends) : 1 };
  const kinds = (field) => [["", "all"], ...[...new Set(board.rows.map((r) => r[field]))].sort().map((v) => [v, v])];
  fill($("backbone"), kinds("backbone"), state.backbone);
  fill($("loss"), kinds("loss"), state.loss);
  const places = DATA.places.map((place, i) => [i, place]).filter(([i]) => board.rows.some((r) => r.ms[i] !== undefined));
  fill($("place"), places.length ? places : [["", "nowhere"]], state.place);
  const device = DATA.places[state.place];
  const axes = [["gmacs", "GMACs an image"], ["params", "parameters (M)"]];
  if (device) axes.push(["ms", `latency (ms) on ${device}`]);
  fill($("x"), axes, state.x);
  describeBoard(device);
}

function describeBoard(device) {
  const out = board.left_out ? ` (${board.left_out} without a positive left out)` : "";
  const facts = [`${board.images.toLocaleString("en")} test images, ${board.classes} labels${out}.`,
    "mAP in percent with its 95 % bootstrap interval over images (one seed) or ± one standard deviation over n seeds.",
    device ? `Latency: median at batch 1 on ${device}; other hardware is another choice, never in the same column.` : "No latency was measured."];
  if (board.labels.length) facts.push(`Labels: ${board.labels.join(", ")}.`);
  if (!board.known) facts.push("Incomplete or unknown data: these numbers compare with no other board.");
  $("facts").textContent = facts.join(" ");
  drawWins();
  $("diverged").hidden = !board.diverged.length;
  $("diverged-list").replaceChildren(...board.diverged.map((d) =>
    el("li", {}, el("a", { href: d.page }, d.title), `: ${d.error}`)));
}

// Whether each row is better (+) or worse (−) than each other, or they cannot be told apart (=).
function drawWins() {
  $("wins").hidden = board.wins.length < 2;
  if ($("wins").hidden || board.matrix) return void (board.matrix && $("matrix").replaceChildren(board.matrix));
  const spoken = { "+": ["+", "win"], "-": ["−", "loss"], "=": ["=", "same"], ".": ["", "self"] };
  const name = (row) => [row.method, row.backbone, row.loss, row.variant].filter(Boolean).join(", ");
  const head = el("tr", {}, el("th", { scope: "col", class: "pin" }, "row against"),
    ...board.rows.map((row, i) => el("th", { scope: "col", title: name(row) }, String(i + 1))));
  const body = board.rows.map((row, i) => el("tr", {}, el("th", { scope: "row" }, `${i + 1}. ${name(row)}`),
    ...[...board.wins[i]].map((sign) => el("td", { class: spoken[sign][1] }, spoken[sign][0]))));
  board.matrix = el("table", { class: "board matrix" }, el("thead", {}, head), el("tbody", {}, ...body));
  $("matrix").replaceChildren(board.matrix);
}

function passes(row) {
  const wanted = state.method.trim().toLowerCase();
  const under = (limit, value) => limit === "" || (value !== undefined && value <= Number(limit));
  return (!wanted || row.method.toLowerCase().includes(wanted))
    && (!state.backbone || row.backbone === state.backbone) && (!state.loss || row.loss === state.loss)
    && under(state.epochs, row.epochs) && under(state.gmacs, row.gmacs);
}

// -------------------------------------------------------------------------------------- the table
function compare(a, b, { value }, down) {
  const [u, v] = [value(a), value(b)];
  if (u === undefined || v === undefined) return (u === undefined) - (v === undefined);
  return (u < v ? -1 : u > v ? 1 : 0) * (down ? -1 : 1) || a.rank - b.rank;
}

function columns() {
  const varies = board.rows.some((row) => row.variant);
  return COLUMNS.filter((column) => column.id !== "variant" || varies);
}

function drawHead() {
  $("board").tHead.replaceChildren(el("tr", {}, ...columns().map(({ id, title, kind }) => {
    const sorted = state.sort === id ? (state.down ? "descending" : "ascending") : "none";
    const button = el("button", { type: "button", "data-sort": id }, title);
    return el("th", { scope: "col", "aria-sort": sorted, class: `${kind} ${id === "method" ? "pin" : ""}` }, button);
  })));
}

function line(row) {
  if (row.line?.place !== state.place) {
    const cells = columns().map(({ id, show, kind }) =>
      el(id === "method" ? "th" : "td", id === "method" ? { scope: "row" } : { class: kind }, ...show(row)));
    row.line = { node: el("tr", {}, ...cells), place: state.place };
  }
  return row.line.node;
}

function drawTable() {
  const column = COLUMNS.find((c) => c.id === state.sort);
  shown = board.rows.filter(passes).sort((a, b) => compare(a, b, column, state.down));
  drawHead();
  $("board").tBodies[0].replaceChildren(...(whole ? shown : shown.slice(0, PAGE)).map(line));
  $("more").hidden = whole || shown.length <= PAGE;
  $("more").textContent = `Show all ${shown.length.toLocaleString("en")} rows`;
  $("count").textContent = `${shown.length.toLocaleString("en")} of ${board.rows.length.toLocaleString("en")} rows`;
}

// --------------------------------------------------------------------------------------- the plot
function say(row) {
  const head = [row.method, row.backbone, row.loss].join(", ") + (row.variant ? ` (${row.variant})` : "");
  const cost = [row.gmacs !== undefined && `${fixed(row.gmacs, 2)} GMACs`, row.params !== undefined && `${fixed(row.params, 2)} M parameters`,
    latency(row) !== undefined && `${fixed(latency(row), 1)} ms`].filter(Boolean).join(", ");
  return `${head}\nmAP ${fixed(row.map, 2)} ${interval(row)}, rank ${row.rank}\n${cost}`;
}

function plot() {
  const cost = { gmacs: (r) => r.gmacs, params: (r) => r.params, ms: latency }[state.x];
  const points = shown.filter((row) => cost(row) !== undefined).map((row) => {
    const [low, high] = bounds(row);
    return { row, x: cost(row), y: row.map, low, high, group: row[state.colour] };
  });
  // Looks are those of the whole board, so that a filter recolours nothing.
  const all = looks([...new Set(board.rows.map((row) => row[state.colour]))].sort());
  const counts = tally(points);
  const title = $("x").selectedOptions[0].textContent;
  drawLegend($("legend"), new Map([...all].filter(([group]) => counts.has(group))), counts);
  if (!points.length) {
    $("plot").replaceChildren(el("p", { class: "quiet" }, "No row to plot: loosen the filters, or choose another axis."));
    $("plot-note").textContent = "";
    return;
  }
  const log = state.log === "1" && points.every((p) => p.x > 0);
  const { crowd, front } = drawPlot($("plot"), points, { title, log, look: all, say });
  const missing = shown.length - points.length;
  $("plot-note").textContent = `Dashed: the front through the ${front} of ${points.length} rows that no other beats (bold), by point estimates; faint rows are beaten even at the upper end of their interval. `
    + (crowd ? `Intervals are drawn for the front only, as there are more than ${CROWD} rows. ` : "Whiskers: the 95 % interval, or two standard deviations over seeds. ")
    + (missing ? `${missing} rows have no such cost and are not drawn.` : "");
}

function tally(points) {
  const counts = new Map();
  for (const { group } of points) counts.set(group, (counts.get(group) ?? 0) + 1);
  return counts;
}

// ------------------------------------------------------------------------- the address, and events
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const field of FIELDS) state[field] = given.get(field) ?? $(field).dataset.first ?? "";
  const sort = given.get("sort") ?? "rank";
  state.down = sort.startsWith("-");
  state.sort = COLUMNS.some((c) => c.id === sort.replace("-", "")) ? sort.replace("-", "") : "rank";
}

function writeAddress() {
  const given = new URLSearchParams(FIELDS.filter((f) => state[f] !== "").map((f) => [f, state[f]]));
  given.set("sort", (state.down ? "-" : "") + state.sort);
  history.replaceState(null, "", `#${given}`);
}

function update() {
  chooseBoard();
  for (const field of ["method", "epochs", "gmacs", "colour"]) $(field).value = state[field];
  $("log").checked = state.log === "1";
  drawTable();
  plot();
}

function onInput({ target }) {
  if (!FIELDS.includes(target.id)) return;
  state[target.id] = target.type === "checkbox" ? (target.checked ? "1" : "0") : target.value;
  update();
  writeAddress();
}

function onSort(event) {
  const id = event.target.closest("button[data-sort]")?.dataset.sort;
  if (!id) return;
  state.down = state.sort === id ? !state.down : COLUMNS.find((c) => c.id === id).down;
  state.sort = id;
  drawTable();
  writeAddress();
  $("board").tHead.querySelector(`[data-sort="${id}"]`).focus();
}

function copyBoard({ target }) {
  const format = target.closest("button[data-board]")?.dataset.board;
  if (!format) return;
  const status = target.parentElement.querySelector(".copied");
  if (format === "BibTeX") {
    const entries = [board.cite, ...new Set(shown.map((row) => DATA.methods[row.method].cite))].filter(Boolean);
    copy(`${[...new Set(entries)].join("\n\n")}\n`, `${entries.length} BibTeX entries`, status);
    return;
  }
  const full = (row) => [row.rank, row.method, row.backbone, row.loss, row.variant, row.seeds, row.map, row.low, row.high, row.sd, row.cf1,
    row.of1, row.gmacs, row.head, row.params, latency(row), DATA.places[state.place], row.size, row.epochs, row.runs.map(([id]) => id).join(" ")];
  const head = "rank method backbone loss variant seeds mAP low high sd CF1 OF1 GMACs GMACs_head params_M latency_ms measured_on size epochs runs";
  const table = format === "CSV" ? { head: head.split(" "), body: shown.map((row) => full(row).map((v) => v ?? "")) }
    : { head: columns().slice(0, -1).map((c) => c.title), body: shown.map((row) => [...line(row).cells].slice(0, -1).map((cell) => one(cell.textContent))) };
  copy(FORMATS[format](table), `${format} of ${shown.length} rows`, status);
}

function start() {
  if (!DATA.boards.length) return;
  readAddress();
  update();
  document.addEventListener("input", onInput);
  document.addEventListener("click", onSort);
  document.addEventListener("click", copyBoard);
  $("clear").addEventListener("click", () => {
    for (const field of ["method", "backbone", "loss", "epochs", "gmacs"]) state[field] = "";
    update();
    writeAddress();
  });
  $("more").addEventListener("click", () => { whole = true; drawTable(); $("board").closest("[tabindex]").focus(); });
  addEventListener("hashchange", () => { readAddress(); update(); });
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    plot();
  }).observe($("plot"));
}
start();
