// Tables and citations to the clipboard. A table is {head: [text], body: [[text]]}.
const one = (text) => String(text).replace(/\s+/g, " ").trim();

function asCsv({ head, body }) {
  const cell = (text) => (/[",\n]/.test(text) ? `"${String(text).replaceAll('"', '""')}"` : String(text));
  return [head, ...body].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

function asMarkdown({ head, body }) {
  const cell = (text) => one(text).replace(/[\\|`*_[\]]/g, "\\$&").replaceAll("<", "&lt;");
  const line = (row) => `| ${row.map(cell).join(" | ")} |`;
  return [line(head), `|${" --- |".repeat(head.length)}`, ...body.map(line)].join("\n") + "\n";
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
  "<": "\\textless{}", ">": "\\textgreater{}", "±": "$\\pm$", "–": "--", "−": "$-$", "|": "\\textbar{}" };

function asLatex({ head, body }) {
  const cell = (text) => one(text).replace(/[&%$#_{}\\~^<>±–−|]/g, (c) => LATEX[c] ?? `\\${c}`)
    .replace(/^\[/, "{}[");
  const line = (row) => `${row.map(cell).join(" & ")} \\\\`;
  const numeric = head.map((_, i) => body.every((row) => /^[\d.,[\]±–−% -]*$/.test(row[i])));
  return [`\\begin{tabular}{${numeric.map((n) => (n ? "r" : "l")).join("")}}`, "\\toprule", line(head),
    "\\midrule", ...body.map(line), "\\bottomrule", "\\end{tabular}"].join("\n") + "\n";
}

const FORMATS = { CSV: asCsv, Markdown: asMarkdown, LaTeX: asLatex };

function tableOf(element) {
  const texts = (row) => [...row.cells].map((cell) => one(cell.textContent));
  return { head: texts(element.tHead.rows[0]), body: [...element.tBodies[0].rows].map(texts) };
}

async function copy(text, what, status) {
  try {
    await navigator.clipboard.writeText(text);
    status.textContent = `${what} copied`;
  } catch {
    // Some browsers refuse the clipboard to a page from disk: the reader copies by hand.
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
