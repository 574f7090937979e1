// The table of the chosen board, by the canonical protocol or another one, and its matrix of wins.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PAGE = 250; // rows drawn at first; drawing 2,000 is slow
const state = { sort: "map", down: true };
let board, shown = [], whole = false;

const fixed = (value, places) => (value === undefined ? "–" : value.toFixed(places));
const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const latency = (row) => row.ms[state.place]?.[0];
const remark = (row) => row.ms[state.place]?.[1] ?? "";
const bounds = (row) => [row.low, row.high];
const interval = (row) => `[${fixed(row.low, 1)}, ${fixed(row.high, 1)}]`;
const seeds = (row) => (row.sd === undefined ? String(row.seeds) : `${row.seeds}, sd ${fixed(row.sd, 2)}`);
const pinned = new Set(); // rows that no filter removes and that stand on top
const named = (row) => [row.method, row.backbone, row.loss, row.variant].filter(Boolean).join(", ");

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A long name may wrap after any of its parts.
const wrapped = (text) => (text.length < 18 ? [text] : text.split(/(?<=[_:\-/=])|(?<=\.)(?=\D)/).flatMap((part) => [part, el("wbr", {})]).slice(0, -1));

const HELP = { rank: "1 + the number of significantly better rows", ties: "How many other rows are neither significantly better nor worse",
  method: "The head; a tick keeps the row on top", map: "Mean average precision in percent, with its 95 % interval", backbone: "What makes the features",
  loss: "Training loss", cf1: "F1 of the mean precision and recall over labels", of1: "F1 over all pairs of an image and a label",
  gmacs: "1e9 multiply-accumulates per image, backbone and head", params: "Millions of parameters, backbone and head",
  ms: "Milliseconds on the chosen place", seeds: "Number of seeds, and the standard deviation of mAP between them", head: "1e9 multiply-accumulates per image, of the head alone",
  start: "What the initial weights of the backbone were trained on", size: "Pixels of an image's side", epochs: "Epochs of training", variant: "Settings that differ from rows of the same names",
  runs: "A page for each run", made: "Date, commit and command" };

// id, heading, value to sort by, contents of a cell, whether it sorts highest first, kind of the cell.
// `at` is a row's place by mAP; it breaks ties.
const COLUMNS = [
  ["rank", "#", (r) => r.rank * 1e5 + r.worst, (r) => [String(r.rank)], false, "number"],
  ["ties", "ties", (r) => r.worst - r.rank, (r) => [String(r.worst - r.rank)], false, "number"],
  ["method", "method", (r) => r.method, (r) => [pinBox(r), el("a", { href: DATA.methods[r.method].page }, ...wrapped(r.method))], false, "name"],
  ["map", "mAP", (r) => -r.at, mapCell, true, "number"],
  ["backbone", "backbone", (r) => r.backbone, (r) => wrapped(r.backbone), false, "name"],
  ["loss", "loss", (r) => r.loss, (r) => wrapped(r.loss), false, "name"],
  ["gmacs", "GMACs", (r) => r.gmacs, (r) => [fixed(r.gmacs, 2)], false, "number"],
  ["params", "params (M)", (r) => r.params, (r) => [fixed(r.params, 2)], false, "number"],
  ["ms", "latency (ms)", latency, (r) => [`${fixed(latency(r), 1)} ${remark(r)}`.trim()], false, "number"],
  ["cf1", "CF1", (r) => r.cf1, (r) => [fixed(r.cf1, 2)], true, "number"],
  ["of1", "OF1", (r) => r.of1, (r) => [fixed(r.of1, 2)], true, "number"],
  ["seeds", "seeds", (r) => r.seeds, (r) => [seeds(r)], true, "number"],
  ["head", "GMACs of head", (r) => r.head, (r) => [fixed(r.head, 3)], false, "number"],
  ["start", "weights from", (r) => r.start, (r) => wrapped(r.start ?? "-"), false, "name"],
  ["size", "size", (r) => r.size, (r) => [String(r.size)], false, "number"],
  ["epochs", "epochs", (r) => r.epochs, (r) => [String(r.epochs)], false, "number"],
  ["variant", "variant", (r) => r.variant, (r) => wrapped(r.variant), false, "variant"],
  ["runs", "runs", (r) => r.runs.length, runCell, true, "runs"],
  ["made", "made by", (r) => r.made[0], madeCell, false, "made"],
].map(([id, title, value, show, down = false, kind = ""]) => ({ id, title, value, show, down, kind }));
const CANONICAL = ["rank", "ties", "map", "cf1", "of1", "seeds"]; // valid for the canonical protocol only

function mapCell(row) {
  return [`${fixed(row.map, 2)} `, el("span", { class: "range" }, interval(row))];
}

function pinBox(row) {
  const box = el("input", { type: "checkbox", "aria-label": `Keep ${named(row)} on top` });
  box.addEventListener("change", () => {
    if (box.checked) pinned.add(row);
    else pinned.delete(row);
    row.line.node.classList.toggle("pinned", box.checked);
    update();
    box.focus();
  });
  return box;
}

function madeCell(row) {
  return [el("details", {}, el("summary", {}, "show"), ...row.made.map((text) => el("p", {}, text)))];
}

function runCell(row) {
  return row.runs.flatMap(([id, page]) => [el("a", { href: page, "aria-label": `run ${id}` }, id.slice(0, 8)), " "]);
}

const chosenProtocol = () => board.protocols.findIndex(([name]) => name === state.protocol);

// One column per value of the chosen protocol; none for the canonical one.
function protocolColumns() {
  const place = chosenProtocol();
  return (board.protocols[place]?.[1] ?? []).map((title, i) => {
    const value = (row) => row.by[place]?.[i] ?? undefined;
    const down = !/loss|error|ECE/.test(title), whose = title.startsWith(state.protocol) ? title : `${state.protocol} ${title}`;
    return { id: `by-${title}`, title, copied: whose + (down ? "" : " (lower is better)"), value, show: (row) => [fixed(value(row), 2)], down, kind: "number" };
  });
}

// A setting that all rows share is named above the plot and has no column.
const constant = (field) => board.rows.length > 0 && board.rows.every((row) => row[field] === board.rows[0][field]);

function columns() {
  const others = protocolColumns(), varies = board.rows.some((row) => row.variant);
  const kept = COLUMNS.filter(({ id }) => !(others.length && CANONICAL.includes(id)) && (id !== "variant" || varies)
    && !(["start", "size", "epochs"].includes(id) && constant(id)));
  const after = kept.findIndex(({ id }) => id === "method") + 1;
  return [...kept.slice(0, after), ...others, ...kept.slice(after)];
}

// The column to sort by: the reader's choice if the table has it, else the most common score.
function sorting() {
  const all = columns(), others = protocolColumns(), found = all.find(({ id }) => id === state.sort);
  if (found) return found;
  const first = others.find(({ title }) => /^(mAP|[CI]F1)$/.test(title)) ?? others[0] ?? all.find(({ id }) => id === "map");
  [state.sort, state.down] = [first.id, first.down];
  return first;
}

function compare(a, b, { value }, down) {
  const [u, v] = [value(a), value(b)];
  if (u === undefined || v === undefined) return (u === undefined) - (v === undefined);
  return (u < v ? -1 : u > v ? 1 : 0) * (down ? -1 : 1) || a.at - b.at;
}

function drawHead() {
  $("board").tHead.replaceChildren(el("tr", {}, ...columns().map(({ id, title, kind }) => {
    const sorted = state.sort === id ? (state.down ? "descending" : "ascending") : "none";
    const button = el("button", { type: "button", "data-sort": id, title: HELP[id] ?? DATA.protocols[state.protocol] }, title);
    return el("th", { scope: "col", "aria-sort": sorted, class: `${kind} ${id === "method" ? "pin" : id}` }, button);
  })));
}

function line(row, shape) {
  const made = `${state.place} ${state.protocol}`;
  if (row.line?.made !== made) {
    const cells = shape.map(({ id, show, kind }) =>
      el(id === "method" ? "th" : "td", id === "method" ? { scope: "row", class: kind } : { class: kind }, ...show(row)));
    row.line = { node: el("tr", {}, ...cells), made };
  }
  return row.line.node;
}

function drawTable(passes) {
  const column = sorting(), shape = columns();
  shown = board.rows.filter(passes).sort((a, b) => pinned.has(b) - pinned.has(a) || compare(a, b, column, state.down));
  drawHead();
  $("board").tBodies[0].replaceChildren(...(whole ? shown : shown.slice(0, PAGE)).map((row) => line(row, shape)));
  $("more").hidden = whole || shown.length <= PAGE;
  $("more").textContent = `Show all ${shown.length.toLocaleString("en")} rows`;
  $("count").textContent = `${shown.length.toLocaleString("en")} of ${counted(board.rows.length, "row")}`;
  const first = column.id === "variant" || column.kind === "name" ? "" : state.down ? ", highest first" : ", lowest first";
  $("order").textContent = `Rows stand in the order of ${column.title}${first}.`;
  describeProtocol();
}

function describeProtocol() {
  const place = chosenProtocol(), missing = board.rows.filter((row) => !row.by[place]).length;
  $("ranks-note").hidden = place >= 0;
  $("protocol-note").textContent = place < 0 ? ""
    : `${state.protocol}: ${DATA.protocols[state.protocol]} Means over the seeds of a row. `
      + (missing ? `Not measured in this build, and shown as –: ${counted(missing, "row")}. ` : "")
      + "Ranks and intervals are hidden, and the plot stays as it is: they hold for the canonical protocol alone.";
}

// The matrix of wins: a row is better (+) or worse (−) than a column, or they cannot be told apart (=).
function drawWins() {
  $("wins").hidden = board.wins.length < 2 || chosenProtocol() >= 0;
  if ($("wins").hidden || board.matrix) return void (board.matrix && $("matrix").replaceChildren(board.matrix));
  const spoken = { "+": ["+", "win"], "-": ["−", "loss"], "=": ["=", "same"], ".": ["", "self"] };
  const head = el("tr", {}, el("th", { scope: "col", class: "pin" }, "row against"),
    ...board.rows.map((row, i) => el("th", { scope: "col", title: named(row) }, String(i + 1))));
  const body = board.rows.map((row, i) => el("tr", {}, el("th", { scope: "row" }, `${i + 1}. ${named(row)} (# ${row.rank})`),
    ...[...board.wins[i]].map((sign) => el("td", { class: spoken[sign][1] }, spoken[sign][0]))));
  board.matrix = el("table", { class: "board matrix" }, el("thead", {}, head), el("tbody", {}, ...body));
  $("matrix").replaceChildren(board.matrix);
}

// Show the published results of the chosen data set; all of them if it has none, or on request.
function drawPapers() {
  const rows = [...document.querySelectorAll(".literature tbody tr")];
  const fits = rows.filter((row) => board.papers.includes(row.dataset.of));
  const all = state.papers === "1" || !fits.length;
  for (const row of rows) row.hidden = !all && !board.papers.includes(row.dataset.of);
  if (!rows.length) return;
  $("papers-note").textContent = fits.length ? `${counted(fits.length, "row")} of ${board.papers.join(", ")}.` : "There are none for the chosen data set; all are shown.";
}

// ------------------------------------------------------------------------------------------- copies
function everything(row) {
  const ms = latency(row), others = protocolColumns();
  const place = others.length ? { protocol: state.protocol } : { rank: row.rank, rank_worst: row.worst };
  const scores = others.length ? Object.fromEntries(others.map(({ copied, value }) => [copied, value(row)]))
    : { mAP: row.map, low: row.low, high: row.high, deviation: row.sd, CF1: row.cf1, OF1: row.of1 };
  return { data_set: board.set, track: board.track, ...place, method: row.method, backbone: row.backbone,
    loss: row.loss, variant: row.variant, seeds: row.seeds, ...scores,
    gmacs: row.gmacs, gmacs_head: row.head, parameters: row.params, latency_ms: ms, latency_remark: remark(row), measured_on: ms === undefined ? "" : DATA.places[state.place],
    image_size: row.size, epochs: row.epochs, run_ids: row.runs.map(([id]) => id).join(" ") };
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
  const shape = columns().filter(({ id }) => id !== "made"), all = shown.map(everything);
  const table = format === "CSV" ? { head: Object.keys(all[0] ?? {}), body: all.map((row) => Object.values(row).map((v) => v ?? "")) }
    : { head: shape.map((c) => c.copied ?? c.title), right: shape.map((c) => c.kind === "number"),
      body: shown.map((row) => [...line(row, columns()).cells].slice(0, shape.length).map((cell) => one(cell.textContent))) };
  copy(FORMATS[format](table), `${format} of ${counted(shown.length, "row")}`, status);
}
