// Copies tables and citations to the clipboard. A table is {head: [text], body: [[text]], right: [bool]}.
// Text is escaped by the rules of mlbench/boards/text.py; a test compares the two.
const CONTROLS = /[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
const MARKUP = /[\\|`*~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[([:])|&(?=#?[A-Za-z0-9]+;)/g;
const FORMULA = /^[=+\-@\t\r]/, NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const visible = (text) => String(text).replace(CONTROLS, "\ufffd");
const one = (text) => visible(text).replace(/[\s\x1c-\x1f\x85]+/g, " ").trim();

// Put an apostrophe before text that a spreadsheet would evaluate as a formula.
function spreadsheet(text) {
  const shown = visible(text);
  return FORMULA.test(shown) && !NUMBER.test(shown) ? `'${shown}` : shown;
}

function asCsv({ head, body }) {
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const cell = (text) => quoted(spreadsheet(text));
  return [head, ...body].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

const escaped = (text) => one(text).replace(MARKUP, "\\$&").replaceAll("<", "&lt;");

function asMarkdown({ head, body, right }) {
  const line = (row) => `| ${row.map(escaped).join(" | ")} |`;
  const rule = `| ${right.map((r) => (r ? "---:" : "---")).join(" | ")} |`;
  return [line(head), rule, ...body.map(line)].join("\n") + "\n";
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
  "<": "\\textless{}", ">": "\\textgreater{}", "±": "$\\pm$", "–": "--", "−": "$-$", "|": "\\textbar{}" };

function asLatex({ head, body, right }) {
  const cell = (text) => one(text).replace(/[&%$#_{}\\~^<>±–−|]/g, (c) => LATEX[c] ?? `\\${c}`)
    .replace(/^[[*]/, "{}$&"); // LaTeX would read them as an argument of the \\ before
  const line = (row) => `${row.map(cell).join(" & ")} \\\\`;
  return [`\\begin{tabular}{${right.map((r) => (r ? "r" : "l")).join("")}}`, "\\toprule", line(head),
    "\\midrule", ...body.map(line), "\\bottomrule", "\\end{tabular}"].join("\n") + "\n";
}

const FORMATS = { CSV: asCsv, Markdown: asMarkdown, LaTeX: asLatex };

function tableOf(element) {
  const texts = (row) => [...row.cells].map((cell) => one(cell.textContent)), [top] = element.tHead.rows;
  return { head: texts(top), body: [...element.tBodies[0].rows].map(texts), right: [...top.cells].map((c) => c.classList.contains("number")) };
}

async function copy(text, what, status) {
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = `${what} copied`;
  } catch {
    // Some browsers deny the clipboard to local files; then the reader copies by hand.
    const area = document.createElement("textarea");
    area.value = text;
    area.rows = 8;
    area.setAttribute("aria-label", what);
    status.replaceChildren("Press Ctrl+C or ⌘C to copy: ", area);
    area.select();
  }
}

function startCopying() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const status = button.parentElement.querySelector("[role=status]");
    const target = document.getElementById(button.dataset.of);
    const format = button.dataset.copy;
    if (FORMATS[format]) copy(FORMATS[format](tableOf(target)), `${format} table`, status);
    else copy(target.textContent, format, status);
  });
}
startCopying();
