/* Search over methods, on every page. The list comes from methods.js; without scripts the pages link to all of it.

   Text is set as text, never as markup. */
"use strict";

(() => {
  const MOST = 8; // results shown
  const root = new URL("..", document.currentScript.src);
  const header = document.querySelector("header.site");
  if (!header || !globalThis.lossboardMethods) return;

  const entries = lossboardMethods.map(([href, id, suite, summary, citation, tags]) => ({
    href, id, suite, summary, citation,
    name: id.toLowerCase(),
    text: [id, summary, citation, ...tags].join(" ").toLowerCase(),
  }));

  /** Entries that hold every word, those whose name does first. */
  function find(query) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return [];
    const place = ({name}) => [name === words[0], name.startsWith(words[0]), name.includes(words[0]), true].indexOf(true);
    return entries
      .filter(({text}) => words.every((word) => text.includes(word)))
      .map((entry, order) => ({entry, order, place: place(entry)}))
      .sort((a, b) => a.place - b.place || a.order - b.order)
      .map(({entry}) => entry);
  }

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  const input = make("input", {
    type: "search", placeholder: "Search methods", "aria-label": "Search methods", autocomplete: "off", spellcheck: "false",
    "aria-controls": "found", "aria-describedby": "found-count",
  });
  const list = make("ul", {});
  const count = make("p", {id: "found-count", role: "status"});
  const panel = make("div", {id: "found", class: "found"}, list, count);
  const box = make("div", {class: "search", role: "search"}, input, panel);
  panel.hidden = true;

  function show() {
    const found = find(input.value);
    list.replaceChildren(...found.slice(0, MOST).map((entry) =>
      make("li", {}, make("a", {href: new URL(entry.href, root)},
        make("strong", {}, entry.id), " ", make("span", {class: "aside"}, entry.suite), make("span", {class: "summary"}, entry.summary)))));
    const more = found.length > MOST ? `, the first ${MOST} shown` : "";
    count.textContent = found.length === 1 ? "1 method" : found.length ? `${found.length} methods${more}` : "No method found";
    panel.hidden = !input.value.trim();
  }

  /** Arrow keys walk from the field down the results and back; Escape returns to the field. */
  function walk(event) {
    const links = [input, ...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const to = {ArrowDown: at + 1, ArrowUp: at - 1, Home: at > 0 ? 1 : -1, End: at > 0 ? links.length - 1 : -1}[event.key];
    if (event.key === "Escape" && !panel.hidden) {
      event.preventDefault();
      input.focus();
      panel.hidden = true;
    } else if (event.key === "Enter" && at === 0 && links[1] && !panel.hidden) {
      links[1].click();
    } else if (to >= 0 && to < links.length && !panel.hidden) {
      event.preventDefault();
      links[to].focus();
    }
  }

  input.addEventListener("input", show);
  input.addEventListener("focus", () => { if (input.value.trim()) show(); });
  box.addEventListener("keydown", walk);
  box.addEventListener("focusout", ({relatedTarget}) => { if (!box.contains(relatedTarget)) panel.hidden = true; });
  header.classList.add("searchable");
  header.append(box);
})();
