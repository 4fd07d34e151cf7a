/* Boards to sort, filter and compare. Without scripts they are plain tables, and nothing here is needed to read them.

   What is chosen stands in the address, `?quick-tuned.sort=-mean&quick-tuned.filter=ldr&quick-tuned.compare=gce+ce`:
   links and the back button work, from disk too. Text is set as text, never as markup. */
"use strict";

(() => {
  const FEWEST = 5; // seeds for a difference to be told from chance, as on the boards
  const FOLDER = new URL("..", document.currentScript.src);
  /** A number with so many digits behind the point, rounded as Python does. */
  const written = ({digits}, value) => new Intl.NumberFormat("en", {
    minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false, roundingMode: "halfEven",
  }).format(value);

  /** An element; an attribute that is false is left out. */
  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }

  const listener = make("p", {class: "unseen", role: "status"});
  document.body.append(listener);

  /** Tell screen readers, when they have finished what they are saying. */
  function announce(text) {
    listener.textContent = text;
  }

  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

  // -- scores by seed, loaded when a comparison asks for them ---------------------------------------------------------

  const asked = new Map(); // board -> promise of its scores
  const arrivals = new Map(); // board -> what to call when they are there
  globalThis.lossboardScores = (board, scores) => arrivals.get(board)?.(scores);

  function load(board) {
    if (!asked.has(board)) {
      asked.set(board, new Promise((resolve, reject) => {
        arrivals.set(board, (scores) => resolve({...scores, methods: new Map(scores.methods)}));
        const [suite, name] = board.split("/");
        const script = make("script", {src: new URL(`${suite}/scores/${name}.js`, FOLDER)});
        script.addEventListener("error", () => { asked.delete(board); reject(new Error(`no scores of ${board}`)); });
        document.head.append(script);
      }));
    }
    return asked.get(board);
  }

  // -- statistics, as lossboard/board.py has them ---------------------------------------------------------------------

  /** The quantile of Student's t between those of whole degrees of freedom: nearly linear in 1 / freedom. */
  function quantile(freedom, table) {
    const low = Math.min(Math.floor(freedom), table.length);
    const at = (whole) => (whole > table.length ? 1.95996 : table[whole - 1]);
    const end = low < table.length ? 1 / (low + 1) : 0;
    return at(low + 1) + (at(low) - at(low + 1)) * (1 / freedom - end) / (1 / low - end);
  }

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  /** [mean, half-width of its 95 % interval] over tasks of per-seed values; null where a task has none.

      Tasks of a dataset share seeds and are averaged seed by seed; datasets are independent (Welch, Satterthwaite).
      Where no dataset has the fewest seeds asked for, the half-width is not known. */
  function interval(tasks, values, quantiles, fewest = 2) {
    const scores = tasks.map((_, i) => values[i]?.filter((value) => value !== null) ?? []);
    if (!scores.length || scores.some((each) => !each.length)) return null;
    const centre = mean(scores.map(mean));
    const datasets = new Map();
    tasks.forEach(([, dataset], i) => datasets.set(dataset, [...(datasets.get(dataset) ?? []), values[i]]));
    let [variance, spread, most] = [0, 0, 0];
    for (const own of datasets.values()) {
      const seeds = own[0].map((_, seed) => own.map((each) => each[seed])).filter((each) => !each.includes(null)).map(mean);
      if (seeds.length < 2) return [centre, NaN];
      most = Math.max(most, seeds.length);
      const middle = mean(seeds);
      const squares = seeds.reduce((sum, value) => sum + (value - middle) ** 2, 0);
      const part = (own.length / tasks.length) ** 2 * squares / (seeds.length - 1) / seeds.length;
      variance += part;
      spread += part ** 2 / (seeds.length - 1);
    }
    if (most < fewest) return [centre, NaN];
    return [centre, variance ? quantile(variance ** 2 / spread, quantiles) * Math.sqrt(variance) : 0];
  }

  /** Differences by seed, null where either has none. */
  const differences = (ours, theirs) => ours.map((task, i) =>
    task && theirs[i] && task.map((value, seed) => (value === null || theirs[i][seed] === null ? null : value - theirs[i][seed])));

  // -- a comparison ---------------------------------------------------------------------------------------------------

  /** What a board averages -> the metric: of an error its negative, of a ratio its logarithm is averaged. */
  const OUTWARD = {error: (value) => -value, percent: (value) => value, ratio: Math.exp};

  /** A number as the board's scale shows it: shares in percent, averaged logarithms as the ratio they are of. */
  const shown = (scale, value) => scale.shown * OUTWARD[scale.name](value);

  function half(scale, [mean, width]) {
    const size = Math.abs(shown(scale, mean + width) - shown(scale, mean - width)) / 2;
    return make("span", {class: "half"}, Number.isFinite(width) ? `±${written(scale, size)}` : "");
  }

  function scoreCell(scale, found) {
    if (!found) return make("td", {}, make("span", {class: "none"}, "–"));
    return make("td", {}, written(scale, shown(scale, found[0])), half(scale, found));
  }

  /** 1: above, its interval too; -1: below; 0: the interval holds 0, or is not known. */
  const verdict = (found) => (found && Math.abs(found[0]) > found[1] ? Math.sign(found[0]) : 0);

  function differenceCell(scale, found) {
    if (!found) return make("td", {class: "apart"}, make("span", {class: "none"}, "–"));
    const kind = {1: "apart above", [-1]: "apart below", 0: "apart level"}[verdict(found)];
    if (scale.name === "ratio") return make("td", {class: kind}, written(scale, shown(scale, found[0])), half(scale, found));
    const size = written(scale, Math.abs(shown(scale, found[0])));
    const sign = Number(size) ? (found[0] > 0 ? "+" : "−") : "";
    return make("td", {class: kind}, sign + size, half(scale, found));
  }

  /** The table of chosen methods, task by task, with differences to the first. */
  function comparison(board, chosen, scores) {
    const {tasks, quantiles, methods, scale} = scores;
    const one = new Set(tasks.map(([, dataset]) => dataset)).size === 1;
    const title = ([task, dataset]) => (one && task.startsWith(`${dataset}/`) ? task.slice(dataset.length + 1) : task);
    const [first, ...others] = chosen;
    const values = new Map(chosen.map((method) => [method, methods.get(method) ?? tasks.map(() => null)]));
    const apart = new Map(others.map((method) => [method, differences(values.get(method), values.get(first))]));
    const line = (name, picked, own) => make("tr", {class: own},
      make("th", {scope: "row", class: "name"}, name),
      scoreCell(scale, interval(picked.map((i) => tasks[i]), picked.map((i) => values.get(first)[i]), quantiles)),
      ...others.flatMap((method) => [values, apart].map((source, column) => {
        const own = picked.map((i) => source.get(method)[i]);
        const found = interval(picked.map((i) => tasks[i]), own, quantiles, column ? FEWEST : 2);
        return column ? differenceCell(scale, found) : scoreCell(scale, found);
      })));
    const all = tasks.map((_, i) => i);
    const link = (method) => make("a", {href: board.row(method).link.href}, method);
    const head = [make("th", {scope: "col", class: "name"}, "task"), make("th", {scope: "col"}, link(first))];
    for (const method of others) {
      head.push(make("th", {scope: "col"}, link(method)), make("th", {scope: "col", class: "apart"}, `to ${first}`));
    }
    const words = scale.words[0].toUpperCase() + scale.words.slice(1);
    const caption = `${words}, ± the 95 % t interval over seeds. Differences to ${first} in ${scale.apart}, paired by seed; ` +
      `grey where the interval holds 0 or there are fewer than ${FEWEST} seeds. They are not adjusted for how many are compared: the ranks of the board are.`;
    const table = make("table", {class: "board compared"},
      make("caption", {}, make("span", {}, caption)),
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...(all.length > 1 ? [line("mean", all, "whole")] : []), ...all.map((i) => line(title(tasks[i]), [i], ""))));
    const told = others.map((method) => {
      const verdicts = all.map((i) => verdict(interval([tasks[i]], [apart.get(method)[i]], quantiles, FEWEST)));
      const [above, below] = [1, -1].map((kind) => verdicts.filter((each) => each === kind).length);
      return make("p", {}, make("strong", {}, method),
        ` is above ${first} on ${above} of ${plural(all.length, "task")} and below it on ${below}` +
        (above + below < all.length ? "; elsewhere they are not told apart." : "."));
    });
    return [...told, make("div", {class: "scroll fit", role: "region", tabindex: "0", "aria-label": `${chosen.join(", ")} compared`}, table)];
  }

  // -- a board --------------------------------------------------------------------------------------------------------

  const NUMBER = /^[<>≤≥]?\s*[-+]?(\d*\.?\d+)(e[-+]?\d+)?\s*([±–%a-zµ].*)?$/i; // not a date
  const said = (cell) => (cell.dataset.sort ?? cell.textContent).trim().replaceAll("−", "-").replaceAll(",", "");
  const missing = (text) => text === "" || text === "–";

  class Board {
    /** ``table`` has the columns rank and method first, rows in the order of the ranking, and a body for each tie;
        or it is any other, with ``data-sortable``, and only sorts. */
    constructor(table) {
      this.table = table;
      this.board = table.dataset.board ?? "";
      [this.suite, this.key] = this.board ? this.board.split("/") : ["", table.dataset.sortable];
      this.heads = [...table.tHead.rows].at(-1).cells;
      this.titles = [...this.heads].map((head) => head.textContent.trim());
      this.bodies = [...table.tBodies];
      this.rows = this.bodies.flatMap((body) => [...body.rows].filter((row) => !row.classList.contains("group")).map((row) => {
        const name = row.querySelector("th.name");
        const ranked = !this.board || /\d/.test(row.cells[0].textContent);
        return {row, body, link: name.querySelector("a"), method: name.textContent.trim(), cells: [...row.cells], ranked};
      }));
      this.state = {sort: "", filter: "", show: "", compare: []};
      this.ordered = ""; // as the rows are now
      this.compared = ""; // as the comparison is now
      this.addButtons();
      if (this.board) this.addTools();
    }

    row(method) {
      return this.rows.find((each) => each.method === method);
    }

    // -- what is added to the page

    addButtons() {
      for (const [i, head] of [...this.heads].entries()) {
        const button = make("button", {type: "button", class: "sort"}, ...head.childNodes);
        head.append(button);
        button.addEventListener("click", () => this.sortBy(i));
      }
    }

    addTools() {
      const tags = new Map((globalThis.lossboardMethods ?? [])
        .filter(([href]) => href.startsWith(`${this.suite}/`)).map(([, id, , , , tags]) => [id, tags]));
      for (const each of this.rows) {
        each.tags = tags.get(each.method) ?? [];
        each.text = [each.method, ...each.tags, each.cells.at(-1).textContent].join(" ").toLowerCase();
        each.box = make("input", {type: "checkbox", class: "pick", "aria-label": `Compare ${each.method}`});
        each.box.addEventListener("change", () => this.pick(each.method, each.box.checked));
        each.cells[0].prepend(each.box);
      }
      const choices = [...new Set(this.rows.flatMap((each) => each.tags))].sort();
      const option = (value, text) => make("option", {value}, text);
      this.filterField = make("input", {type: "search", placeholder: "Filter methods", "aria-label": "Filter methods by name, tag or note", autocomplete: "off", spellcheck: "false"});
      this.showField = make("select", {"aria-label": "Show"}, option("", "All methods"), option("first", "May be first"));
      if (choices.length) this.showField.append(make("optgroup", {label: "Declared"}, ...choices.map((tag) => option(tag, tag))));
      this.count = make("span", {class: "count"});
      this.reset = make("button", {type: "button", class: "plain"}, "Back to the ranking");
      const label = this.table.closest("[aria-label]").getAttribute("aria-label");
      const tools = make("div", {class: "tools", role: "group", "aria-label": `Sort, filter and compare: ${label}`},
        this.filterField, this.showField, this.count, this.reset);
      this.chosen = make("span", {});
      this.jump = make("a", {href: `#${this.key}-compared`}, "Compare ↓");
      this.clear = make("button", {type: "button", class: "plain"}, "Clear");
      this.tray = make("div", {class: "tray", role: "group", "aria-label": "Methods to compare"}, this.chosen, this.jump, this.clear);
      this.panel = make("div", {class: "comparison", id: `${this.key}-compared`, tabindex: "-1"});
      const scroll = this.table.closest(".scroll");
      const bench = make("div", {class: "bench"});
      scroll.replaceWith(bench);
      bench.append(tools, scroll, this.tray, this.panel);
      this.filterField.addEventListener("input", () => this.change({filter: this.filterField.value}, true));
      this.showField.addEventListener("change", () => this.change({show: this.showField.value}));
      this.reset.addEventListener("click", () => { this.filterField.focus(); this.change({sort: "", filter: "", show: ""}); });
      this.clear.addEventListener("click", () => { this.filterField.focus({preventScroll: true}); this.change({compare: []}); });
    }

    // -- what happens

    /** Best first, then the other way; what is no board goes back to its own order with the third click. */
    sortBy(i) {
      const title = this.titles[i];
      const {sort} = this.state;
      const [first, second] = this.isNumeric(i) && !title.endsWith("rank") ? [`-${title}`, title] : [title, `-${title}`];
      const next = {[first]: second, [second]: this.board ? first : ""}[sort] ?? first;
      this.change({sort: this.isRank(i) ? (sort ? "" : `-${title}`) : next});
    }

    /** Whether this is the column of ranks, in whose order a board stands. */
    isRank(i) {
      return Boolean(this.board) && i === 0;
    }

    pick(method, chosen) {
      const others = this.state.compare.filter((each) => each !== method);
      this.change({compare: chosen ? [...others, method] : others});
    }

    change(changed, typed = false) {
      const before = this.state;
      this.state = {...before, ...changed};
      remember(typed);
      this.apply();
      const compared = this.state.compare;
      announce(changed.compare ? (compared.length ? `To compare: ${compared.join(", ")}` : "No method to compare") : this.summary());
    }

    /** The state as the address has it; what the board does not know is left out. */
    read(parameters) {
      const get = (name) => parameters.get(`${this.key}.${name}`) ?? "";
      const sort = get("sort");
      const known = this.titles.some((title, i) => (sort === title && !this.isRank(i)) || sort === `-${title}`);
      this.state = {...this.state, sort: known ? sort : ""};
      if (!this.board) return;
      const compare = [...new Set(get("compare").split(" "))].filter((method) => this.row(method));
      const show = [...this.showField.options].some((option) => option.value === get("show")) ? get("show") : "";
      this.state = {...this.state, filter: get("filter"), show, compare};
    }

    write(parameters) {
      const {compare, ...rest} = this.state;
      for (const [name, value] of Object.entries({...rest, compare: compare.join(" ")})) {
        if (value) parameters.set(`${this.key}.${name}`, value);
        else parameters.delete(`${this.key}.${name}`);
      }
    }

    // -- what is shown

    apply() {
      this.order();
      if (!this.board) return;
      this.filter();
      this.compare();
    }

    isNumeric(i) {
      const told = this.rows.map(({cells}) => said(cells[i])).filter((text) => !missing(text));
      return told.length > 0 && told.every((text) => NUMBER.test(text));
    }

    /** Rows by a column, equal ones as ranked, missing ones last; or as ranked, in their ties. Unranked rows stay apart. */
    order() {
      const {sort} = this.state;
      const down = sort.startsWith("-") && !this.titles.includes(sort);
      const column = this.titles.indexOf(down ? sort.slice(1) : sort);
      for (const [i, head] of [...this.heads].entries()) {
        if (i === column || (!sort && this.isRank(i))) head.setAttribute("aria-sort", down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
      if (this.ordered === sort) return; // moving a row would take the focus out of it
      this.ordered = sort;
      if (!sort) {
        for (const {row, body} of this.rows) body.append(row);
        return;
      }
      const read = this.isRank(column) ? (_, rank) => rank : key(this.isNumeric(column));
      const keyed = this.rows.map((each, rank) => ({...each, rank, key: read(said(each.cells[column]), rank)}));
      keyed.sort((a, b) => b.ranked - a.ranked || compareKeys(a.key, b.key, down) || a.rank - b.rank);
      for (const {row, body, ranked} of keyed) (ranked ? this.bodies[0] : body).append(row);
    }

    filter() {
      const {filter, show, sort} = this.state;
      if (this.filterField.value !== filter) this.filterField.value = filter;
      this.showField.value = show;
      const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
      for (const each of this.rows) {
        const shown = show === "" || (show === "first" ? /^1(\D|$)/.test(said(each.cells[0])) : each.tags.includes(show));
        each.row.hidden = !(shown && words.every((word) => each.text.includes(word)));
      }
      for (const body of this.bodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
        body.hidden = rows.every((row) => row.hidden);
        const line = body.querySelector("tr.group");
        if (line) line.hidden = Boolean(sort) && !body.classList.contains("unranked");
      }
      this.count.textContent = this.counted();
      this.reset.hidden = !(sort || filter || show);
    }

    counted() {
      if (!this.board) return plural(this.rows.length, "row");
      const shown = this.rows.filter(({row}) => !row.hidden).length;
      return shown === this.rows.length ? plural(shown, "method") : `${shown} of ${plural(this.rows.length, "method")}`;
    }

    summary() {
      const {sort} = this.state;
      const down = sort.startsWith("-");
      const order = sort ? `sorted by ${down ? sort.slice(1) : sort}, ${down ? "descending" : "ascending"}` : `in the ${this.board ? "order of the ranking" : "first order"}`;
      return `${this.counted()}, ${order}`;
    }

    async compare() {
      const {compare} = this.state;
      for (const {box, method, row} of this.rows) {
        box.checked = compare.includes(method);
        row.classList.toggle("picked", box.checked);
      }
      this.tray.hidden = !compare.length;
      this.jump.hidden = compare.length < 2;
      this.chosen.textContent = compare.length === 1 ? `${compare[0]}: choose another to compare it with` : compare.join(", ");
      if (this.compared === compare.join(" ")) return;
      this.compared = compare.join(" ");
      if (compare.length < 2) {
        this.panel.replaceChildren();
        return;
      }
      const title = make("h4", {}, `${compare.slice(0, -1).join(", ")} and ${compare.at(-1)}`);
      const chosen = [...compare];
      try {
        const parts = comparison(this, chosen, await load(this.board));
        if (this.compared === chosen.join(" ")) this.panel.replaceChildren(title, ...this.references(), ...parts);
      } catch (error) {
        this.panel.replaceChildren(title, make("p", {class: "empty"}, `They cannot be compared: ${error.message}.`));
      }
    }

    /** To which of the chosen methods the others are compared. */
    references() {
      const {compare} = this.state;
      const field = make("select", {}, ...compare.map((method) => make("option", {value: method}, method)));
      field.addEventListener("change", async () => {
        this.change({compare: [field.value, ...compare.filter((method) => method !== field.value)]});
        await load(this.board);
        this.panel.querySelector("select")?.focus();
      });
      return [make("label", {class: "reference"}, "Differences to ", field)];
    }
  }

  /** What a cell is sorted by; null for a missing value. */
  function key(numeric) {
    return (text) => (missing(text) ? null : numeric ? Number.parseFloat(text.replace(/^[<>≤≥]\s*/, "")) : text);
  }

  /** Missing values last, whichever way. */
  function compareKeys(a, b, down) {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true});
    return down ? -order : order;
  }

  // -- the address ----------------------------------------------------------------------------------------------------

  const boards = [...document.querySelectorAll("table[data-board], table[data-sortable]")].map((table) => new Board(table));

  let typing = false;

  /** Put the state in the address: a step back for each choice, and one for what was typed in one go. */
  function remember(typed) {
    const parameters = new URLSearchParams(location.search);
    for (const board of boards) board.write(parameters);
    const query = parameters.toString();
    try {
      history[typed && typing ? "replaceState" : "pushState"](null, "", location.pathname + (query ? `?${query}` : "") + location.hash);
    } catch {
      // a browser that forbids it, or is asked too often: the page works, only its address lags behind
    }
    typing = typed;
  }

  function restore() {
    const parameters = new URLSearchParams(location.search);
    for (const board of boards) {
      board.read(parameters);
      board.apply();
    }
  }

  restore();
  addEventListener("popstate", restore);
  addEventListener("pageshow", ({persisted}) => { if (persisted) restore(); });
})();
