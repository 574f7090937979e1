// Accuracy against cost: points with intervals and the Pareto front, drawn as SVG.
const COLOURS = 8;
const SHAPES = [
  "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z", "M-4.5-4.5H4.5V4.5H-4.5Z", "M0-5.5L5.3 4.2H-5.3Z",
  "M0-6L5.5 0L0 6L-5.5 0Z", "M0 5.5L5.3-4.2H-5.3Z",
  "M-1.8-5.4H1.8V-1.8H5.4V1.8H1.8V5.4H-1.8V1.8H-5.4V-1.8H-1.8Z",
  "M0-5.6L5.3-1.7L3.3 4.5H-3.3L-5.3-1.7Z",
  "M0-6.5L1.7-2.2L6.2-2L2.7 .9L3.9 5.3L0 2.8L-3.9 5.3L-2.7 .9L-6.2-2L-1.7-2.2Z",
];
const CROWD = 150;

function drawn(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Groups differ in colour and in shape; the ninth group has the first colour with another shape.
function looks(groups) {
  return new Map(groups.map((group, i) => {
    const shape = (i + Math.floor(i / COLOURS)) % SHAPES.length;
    return [group, { colour: `k${i % COLOURS}`, shape: SHAPES[shape] }];
  }));
}

// A point beats another if it costs no more and scores no less, and they are not equal. A point is on
// the front if none beats it; it may be on it if none beats its upper bound by a lower bound.
function stand(points) {
  const beaten = (a, upper, lower) => points.some((b) => b !== a && b.x <= a.x && b[lower] >= a[upper]
    && (b.x < a.x || b[lower] > a[upper]));
  for (const point of points) {
    point.best = !beaten(point, "y", "y");
    point.maybe = point.best || !beaten(point, "high", "low");
  }
  return points.filter((p) => p.best).sort((a, b) => a.x - b.x);
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9; i++) ticks.push(+(i * step).toPrecision(10));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
    for (const m of [1, 2, 5]) if (m * 10 ** p >= low && m * 10 ** p <= high) ticks.push(+(m * 10 ** p).toPrecision(3));
  }
  return ticks.length > 2 ? ticks : linearTicks(low, high, 6);
}

function scaleOf(low, high, from, to, log) {
  const f = log ? Math.log10 : (v) => v;
  const a = f(low), b = f(high);
  return (value) => from + ((f(value) - a) / (b - a || 1)) * (to - from);
}

function reach(points, log) {
  const xs = points.map((p) => p.x), ys = points.flatMap((p) => [p.low, p.high]);
  let [left, right] = [Math.min(...xs), Math.max(...xs)];
  let [bottom, top] = [Math.min(...ys), Math.max(...ys)];
  if (log) [left, right] = [left / 1.15, right * 1.15];
  else { const pad = (right - left || right || 1) * 0.06; [left, right] = [Math.max(0, left - pad), right + pad]; }
  const pad = (top - bottom || 1) * 0.06;
  return { left, right, bottom: bottom - pad, top: top + pad };
}

function drawAxes(svg, box, edge, x, y, title, log) {
  const across = log ? logTicks(edge.left, edge.right) : linearTicks(edge.left, edge.right, box.width < 500 ? 4 : 8);
  for (const tick of across) {
    svg.append(drawn("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }),
      drawn("text", { x: x(tick), y: box.bottom + 16, "text-anchor": "middle" }, String(tick)));
  }
  for (const tick of linearTicks(edge.bottom, edge.top, 6)) {
    svg.append(drawn("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      drawn("text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  svg.append(drawn("text", { x: box.right, y: box.bottom + 34, "text-anchor": "end" }, title),
    drawn("text", { x: box.left, y: 12 }, "mAP (%)"));
}

// Offsets of a name from its point, nearest first; a line leads to the farther ones.
const PLACES = [11, 20, 32, 46, 64, 86].flatMap((far) =>
  [[1, -1], [-1, -1], [1, 1], [-1, 1], [1, 0], [-1, 0], [0, -1], [0, 1]].map(([across, down]) => [across * far, down * far]));
const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const about = (x, y, wide, tall = wide) => ({ left: x - wide, right: x + wide, top: y - tall, bottom: y + tall });

// The boxes of a name and of the line that leads to it, for every place inside the drawing.
function placesOf(text, from, box) {
  const wide = text.length * 6.7 + 4;
  return PLACES.map(([across, down]) => {
    const left = from.x + across - (across < 0 ? wide : across ? 0 : wide / 2), y = from.y + down;
    const far = Math.hypot(across, down), steps = far > 24 ? Math.floor(far / 4) : 0;
    const lead = Array.from({ length: steps }, (_, i) => about(from.x + (across * i) / steps, from.y + (down * i) / steps, 1));
    return { left, right: left + wide, top: y - 8, bottom: y + 8, y, across, lead: lead.filter((_, i) => i * 4 > 12) };
  }).filter((p) => p.left >= box.left && p.right <= box.right && p.top >= 2 && p.bottom <= box.bottom);
}

// Name the points of the front so that a name covers no marker and no other name. A name without room
// is left out: legend and tooltip have it. A name may cross whiskers and the front. Coinciding points
// of one method get one name.
function nameFront(svg, front, all, lines, x, y, box) {
  const marks = all.map((p) => about(x(p.x), y(p.y), 7)), taken = [];
  for (const { row, ...point } of [...front].reverse()) {
    const from = { x: x(point.x), y: y(point.y) };
    if (taken.some((t) => t.name === row.method && Math.hypot(t.from.x - from.x, t.from.y - from.y) < 8)) continue;
    const free = placesOf(row.method, from, box).filter((p) => ![...marks, ...taken].some((t) => overlap(p, t))
      && !p.lead.some((step) => [...marks, ...taken].some((t) => overlap(step, t))));
    const place = free.find((p) => !lines.some((line) => overlap(p, line))) ?? free[0];
    if (!place) continue;
    taken.push({ ...place, left: place.left - 6, right: place.right + 6, name: row.method, from });
    const anchor = place.across < 0 ? "end" : place.across ? "start" : "middle";
    const end = { start: place.left, end: place.right, middle: from.x }[anchor];
    if (place.lead.length) svg.append(drawn("line", { class: "leader", x1: from.x, y1: from.y, x2: end, y2: place.y }));
    svg.append(drawn("text", { class: "name", x: end, y: place.y + 4, "text-anchor": anchor }, row.method));
  }
}

function stepBoxes(front, x, y, box) {
  return front.flatMap((p, i) => {
    const next = front[i + 1], right = next ? x(next.x) : box.right;
    const along = { left: x(p.x), right, top: y(p.y) - 1, bottom: y(p.y) + 1 };
    return next ? [along, { left: right - 1, right: right + 1, top: y(next.y), bottom: y(p.y) }] : [along];
  });
}

function drawPoint(point, look, x, y, say) {
  const { best, maybe } = point;
  const shape = drawn("path", { class: `dot ${look.colour}${best ? " best" : maybe ? " maybe" : ""}`, d: look.shape,
    transform: `translate(${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)})` });
  // The table gives the keyboard every row; here Tab visits the front only.
  const link = drawn("a", { href: point.row.runs[0][1], tabindex: best ? 0 : -1, "aria-label": say(point.row) }, shape);
  link.point = point;
  return link;
}

function drawPlot(holder, points, { title, log, look, say }) {
  const width = Math.max(280, holder.clientWidth - 14), height = width < 560 ? 300 : 400;
  const box = { left: 44, right: width - 14, top: 22, bottom: height - 42, width };
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `mAP against ${title}: ${points.length} rows; the table below holds the same numbers` });
  const front = stand(points), rest = points.filter((p) => !p.best), edge = reach(points, log);
  const x = scaleOf(edge.left, edge.right, box.left, box.right, log);
  const y = scaleOf(edge.bottom, edge.top, box.bottom, box.top, false);
  drawAxes(svg, box, edge, x, y, title, log);
  const crowd = points.length > CROWD;
  const whiskers = (some) => some.map((p) => `M${x(p.x).toFixed(1)} ${y(p.low).toFixed(1)}V${y(p.high).toFixed(1)}`).join("");
  if (!crowd) svg.append(drawn("path", { class: "whisker", d: whiskers(rest) }));
  const steps = front.map((p, i) => (i ? `H${x(p.x)}V${y(p.y)}` : `M${x(p.x)} ${y(p.y)}`)).join("");
  svg.append(drawn("path", { class: "front", d: `${steps}H${box.right}` }),
    drawn("path", { class: "whisker best", d: whiskers(front) }));
  svg.append(...[...rest, ...front].map((p) => drawPoint(p, look.get(p.group), x, y, say)));
  const bars = crowd ? [] : points.map((p) => ({ left: x(p.x) - 1, right: x(p.x) + 1, top: y(p.high), bottom: y(p.low) }));
  nameFront(svg, front, points, [...bars, ...stepBoxes(front, x, y, box)], x, y, box);
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  holder.replaceChildren(svg, tip);
  listen(holder, svg, tip, x, y, say);
  return { front: front.length, crowd };
}

function listen(holder, svg, tip, x, y, say) {
  const show = (event) => {
    const link = event.target.closest("a");
    tip.hidden = !link;
    if (!link) return;
    const { point } = link;
    tip.textContent = say(point.row);
    const left = Math.min(x(point.x) + 14, holder.clientWidth - tip.offsetWidth - 6);
    tip.style.left = `${Math.max(6, left)}px`;
    tip.style.top = `${Math.max(4, y(point.y) - tip.offsetHeight - 12)}px`;
  };
  svg.addEventListener("pointerover", show);
  svg.addEventListener("focusin", show);
  svg.addEventListener("focusout", () => { tip.hidden = true; });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  svg.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
}

function drawLegend(list, look, counts) {
  list.replaceChildren(...[...look].map(([group, { colour, shape }]) => {
    const item = document.createElement("li");
    item.append(drawn("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" },
      drawn("path", { class: `dot best ${colour}`, d: shape })), `${group} (${counts.get(group)})`);
    return item;
  }));
}
