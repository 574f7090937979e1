// The reader's choice of light or dark; the system's by default.
const chosen = { get() { try { return localStorage.getItem("mlbench-theme"); } catch { return null; } },
  set(theme) { try { localStorage.setItem("mlbench-theme", theme); } catch { /* private window */ } } };

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function startTheme() {
  const button = document.getElementById("theme");
  if (chosen.get()) document.documentElement.dataset.theme = chosen.get();
  const say = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    chosen.set(document.documentElement.dataset.theme);
    say();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
  button.hidden = false;
  say();
}
startTheme();
