// Chooses a board, filters its rows, and hands them to table and plot. Text is inserted as text, never as markup.
const FIELDS = ["set", "track", "backbone", "loss", "place", "x", "colour", "protocol", "method", "epochs", "gmacs", "params", "latency", "log", "papers"];
for (const each of DATA.boards) each.rows.forEach((row, i) => { row.at = i; });

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
  const kinds = (field) => [["", "all"], ...[...new Set(board.rows.map((r) => r[field]))].sort().map((v) => [v, v])];
  fill($("backbone"), kinds("backbone"), state.backbone);
  fill($("loss"), kinds("loss"), state.loss);
  const places = DATA.places.map((place, i) => [i, place]).filter(([i]) => board.rows.some((r) => r.ms[i] !== undefined));
  fill($("place"), places.length ? places : [["", "nowhere"]], state.place);
  const device = DATA.places[state.place];
  const axes = [["gmacs", "GMACs per image"], ["params", "parameters (M)"]];
  if (device) axes.push(["ms", `latency (ms) on ${device}`]);
  fill($("x"), axes, state.x);
  fill($("protocol"), [["", "canonical"], ...board.protocols.map(([name]) => [name, name])], state.protocol);
  describeBoard(device);
}

function describeBoard(device) {
  const out = board.left_out ? ` (${board.left_out} without an AP left out)` : "";
  const facts = [`${counted(board.images, board.image)}, ${counted(board.classes, "label")}${out}.`,
    board.noise === null ? `mAP in percent with its 95 % bootstrap interval over ${board.image}s. No row has several seeds: the noise of training is not counted.`
      : `mAP in percent, the mean over the seeds, with its 95 % interval over ${board.image}s (bootstrap) and training (sd ${fixed(board.noise, 2)} between seeds, over all rows that have several).`,
    device ? `Latency: on ${device}; other hardware is another choice, never in the same column. ${DATA.ratio}` : "No latency was measured.",
    ...Object.entries(DATA.remarks).filter(([word]) => board.rows.some((r) => remark(r) === word)).map(([word, meaning]) => `${word}: ${meaning}.`)];
  if (board.few) facts.splice(2, 0, board.few);
  const same = ["size", "epochs"].filter(constant).map((field) => `${field} ${board.rows[0][field]}`);
  if (same.length) facts.push(`All rows: ${same.join(", ")}.`);
  if (board.labels.length) facts.push(`Labels: ${board.labels.join(", ")}.`);
  if (board.untuned) facts.push(board.untuned);
  if (board.code) facts.unshift(board.code);
  if (!board.known) facts.push("Incomplete or unknown data: these numbers compare with no other board.");
  $("facts").textContent = facts.join(" ");
  drawWins();
  drawPapers();
  $("diverged").hidden = !board.diverged.length;
  $("diverged-list").replaceChildren(...board.diverged.map((d) =>
    el("li", {}, el("a", { href: d.page }, d.title), `: ${d.error}`)));
}

function passes(row) {
  const wanted = state.method.trim().toLowerCase();
  const under = (limit, value) => limit === "" || (value !== undefined && value <= Number(limit));
  return pinned.has(row) || (!wanted || row.method.toLowerCase().includes(wanted))
    && (!state.backbone || row.backbone === state.backbone) && (!state.loss || row.loss === state.loss)
    && under(state.epochs, row.epochs) && under(state.gmacs, row.gmacs)
    && under(state.params, row.params) && under(state.latency, latency(row));
}

// --------------------------------------------------------------------------------------- the plot
function say(row) {
  const head = [row.method, row.backbone, row.loss].join(", ") + (row.variant ? ` (${row.variant})` : "");
  const cost = [row.gmacs !== undefined && `${fixed(row.gmacs, 2)} GMACs`, row.params !== undefined && `${fixed(row.params, 2)} M parameters`,
    latency(row) !== undefined && `${fixed(latency(row), 1)} ms`].filter(Boolean).join(", ");
  const deviation = row.sd === undefined ? "" : `, sd ${fixed(row.sd, 2)} between its seeds`;
  return `${head}\nmAP ${fixed(row.map, 2)} ${interval(row)}, rank ${row.rank} of ${board.rows.length}, tied with ${counted(row.worst - row.rank, "other")}${deviation}\n${cost}`;
}

function plot() {
  const cost = { gmacs: (r) => r.gmacs, params: (r) => r.params, ms: latency }[state.x];
  const points = shown.filter((row) => cost(row) !== undefined).map((row) => {
    const [low, high] = bounds(row);
    return { row, x: cost(row), y: row.map, low, high, group: row[state.colour] };
  });
  // Colours and shapes are assigned over the whole board, so no filter changes them.
  const all = looks([...new Set(board.rows.map((row) => row[state.colour]))].sort());
  const counts = tally(points);
  const title = $("x").selectedOptions[0].textContent;
  drawLegend($("legend"), new Map([...all].filter(([group]) => counts.has(group))), counts);
  if (!points.length) {
    $("plot").replaceChildren(el("p", { class: "quiet" }, "No row to plot: loosen the filters, or choose another axis."));
    $("plot-note").textContent = $("cheapest").textContent = "";
    return;
  }
  const log = state.log === "1" && points.every((p) => p.x > 0);
  const { crowd, front } = drawPlot($("plot"), points, { title, log, look: all, say });
  $("cheapest").textContent = cheapest(points, title);
  const missing = shown.length - points.length;
  $("plot-note").textContent = `Dashed: the front through the ${front} of ${counted(points.length, "row")} that no other beats (bold), by point estimates; faint rows are beaten even at the upper end of their interval. `
    + (crowd ? `Intervals are drawn for the front only, as there are more than ${CROWD} rows. ` : "Whiskers: the 95 % interval. ")
    + (missing ? `Without such a cost, and not drawn: ${counted(missing, "row")}.` : "");
}

function cheapest(points, title) {
  const best = Math.max(...points.map((p) => p.y));
  const [{ row, x, y }] = points.filter((p) => p.y >= best - 1).sort((a, b) => a.x - b.x || b.y - a.y);
  return `Cheapest within a point of the best mAP: ${[row.method, row.backbone, row.loss].join(", ")}; mAP ${fixed(y, 2)}, ${title} ${fixed(x, 2)}.`;
}

function tally(points) {
  const counts = new Map();
  for (const { group } of points) counts.set(group, (counts.get(group) ?? 0) + 1);
  return counts;
}

// ------------------------------------------------------------------------- the address, and events
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const field of FIELDS) state[field] = given.get(field) ?? $(field)?.dataset.first ?? "";
  const sort = given.get("sort") ?? "-map";
  state.down = sort.startsWith("-");
  state.sort = sort.replace(/^-/, ""); // `sorting` replaces a column that the table does not have
}

function writeAddress() {
  const given = new URLSearchParams(FIELDS.filter((f) => state[f] !== "").map((f) => [f, state[f]]));
  given.set("sort", (state.down ? "-" : "") + state.sort);
  history.replaceState(null, "", `#${given}`);
}

function update() {
  chooseBoard();
  for (const field of ["method", "epochs", "gmacs", "params", "latency", "colour"]) $(field).value = state[field];
  for (const field of ["log", "papers"]) if ($(field)) $(field).checked = state[field] === "1";
  drawTable(passes);
  plot();
}

function onInput({ target }) {
  if (!FIELDS.includes(target.id)) return;
  state[target.id] = target.type === "checkbox" ? (target.checked ? "1" : "0") : target.value;
  if (target.id === "protocol") state.sort = ""; // sort by its first value
  update();
  writeAddress();
}

function onSort(event) {
  const id = event.target.closest("button[data-sort]")?.dataset.sort;
  if (!id) return;
  state.down = state.sort === id ? !state.down : columns().find((c) => c.id === id).down;
  state.sort = id;
  drawTable(passes);
  writeAddress();
  $("board").tHead.querySelector(`[data-sort="${id}"]`).focus();
}

function start() {
  if (!DATA.boards.length) return;
  $("choose").open = innerWidth > 640; // on a phone the filters fold away
  readAddress();
  update();
  document.addEventListener("input", onInput);
  document.addEventListener("click", onSort);
  document.addEventListener("click", copyBoard);
  $("clear").addEventListener("click", () => {
    for (const field of ["method", "backbone", "loss", "epochs", "gmacs", "params", "latency"]) state[field] = "";
    update();
    writeAddress();
  });
  $("more").addEventListener("click", () => { whole = true; drawTable(passes); $("board").closest("[tabindex]").focus(); });
  addEventListener("hashchange", () => {
    if ($(location.hash.slice(1))) return; // a link to a section of this page chooses no board
    readAddress();
    update();
  });
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    plot();
  }).observe($("plot"));
}
start();
