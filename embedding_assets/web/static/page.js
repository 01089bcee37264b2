// Answers as one types, and moves from hit to hit. Without it, the forms work as forms.
"use strict";

const WAIT = 250; // milliseconds without a key before the server is asked
const form = document.getElementById("search");
const box = document.getElementById("q");
const results = document.getElementById("results");
const said = document.getElementById("said");
const clear = document.getElementById("clear");

let timer, asking;

function filters() {
  return [...form.querySelectorAll(".fields input, .fields select")];
}

function address(path) {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (value.trim()) given.set(name, value.trim());
  }
  const query = given.toString();
  return query ? `${path}?${query}` : path;
}

async function ask() {
  clearTimeout(timer);
  if (asking) asking.abort(); // the server ends that search, too
  const mine = (asking = new AbortController());
  const place = address("/");
  clear.hidden = !filters().some((field) => field.value);
  results.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address("/results"), { signal: mine.signal });
    const text = await answer.text();
    if (mine.signal.aborted) return;
    results.innerHTML = text; // from our server, where everything is escaped
    history.replaceState(null, "", place);
    document.title = box.value.trim() ? `${box.value.trim()} · Search calls` : "Search calls";
    const count = results.querySelector("[data-count]");
    said.textContent = count ? count.textContent : "";
  } catch (error) {
    if (mine.signal.aborted) return;
    const problem = document.createElement("p");
    problem.className = "notice";
    problem.setAttribute("role", "alert");
    problem.textContent = "The server does not answer. Is it running, and are you online? Type to try again.";
    results.replaceChildren(problem);
  }
  if (asking === mine) results.removeAttribute("aria-busy");
}

if (form) {
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, WAIT);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (matchMedia("(hover: none)").matches) box.blur(); // its keyboard hides the hits
    ask();
  });
  clear.addEventListener("click", (event) => {
    event.preventDefault(); // its address has the question that the page was opened with
    for (const field of filters()) field.value = "";
    ask();
    box.focus();
  });
}

function step(list, by) {
  const at = list.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : -1) : at + by;
  if (next < 0) {
    if (box && form) box.focus();
    return;
  }
  const target = list[Math.min(next, list.length - 1)];
  if (target) {
    target.focus();
    target.scrollIntoView({ block: "nearest" });
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = event.target.matches("input, select, textarea");
  const isEmptyBox = event.target === box && !box.value; // it has the focus from the start
  if (event.key === "/" && box && (!typing || isEmptyBox)) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (form && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    if (typing && event.target !== box) return; // dates and lists use the arrows themselves
    const hits = [...results.querySelectorAll("a.open, .calls li > a")];
    if (!hits.length || (event.target === box && event.key === "ArrowUp")) return;
    event.preventDefault();
    step(hits, event.key === "ArrowDown" ? 1 : -1);
  } else if (form && event.key === "Escape" && !typing) {
    box.focus();
  } else if (!typing && (event.key === "n" || event.key === "p")) {
    const turns = [...document.querySelectorAll(".transcript > li")];
    const at = turns.findIndex((turn) => turn.matches(":target"));
    const places = turns.filter((turn) => turn.matches(".answers"));
    if (!places.length) return;
    const isAfter = (turn) => turns.indexOf(turn) > at;
    const isBefore = (turn) => turns.indexOf(turn) < at;
    const next =
      event.key === "n"
        ? places.find(isAfter) || places[0]
        : places.findLast(isBefore) || places.at(-1);
    location.replace(`#${next.id}`); // scrolls, focuses, and can be sent to somebody
  }
});
