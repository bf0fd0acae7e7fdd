// Sorting, filtering, and opening all. Without it, the page still shows everything, largest first.
(() => {
  "use strict";
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const details = [...document.querySelectorAll("details")];
  const heads = [...document.querySelectorAll("th[data-sort]")];
  const collator = new Intl.Collator("en", { numeric: true });

  // The cell of each sortable head: in the order of columns, those of the second line of heads come between others.
  const [first, second] = document.querySelector("thead").rows;
  const below = [...second.cells];
  const columns = [...first.cells].flatMap((head) => (head.colSpan > 1 ? below.splice(0, head.colSpan) : [head]));

  const keys = new Map(); // column -> value of each row, read once
  const keysOf = (column, numeric) => {
    if (!keys.has(column)) {
      const read = (text) => (numeric ? Number(text.replaceAll(",", "")) : text);
      keys.set(column, new Map(rows.map((row) => [row, read(row.cells[column].textContent)])));
    }
    return keys.get(column);
  };

  // Columns of a long table keep their widths while it is sorted: else the browser weighs all cells once more.
  const cols = body.closest(".many") ? [...document.querySelectorAll("col")] : [];
  const freeze = (widths) => {
    cols.forEach((col, index) => (col.style.width = widths[index] ? `${widths[index]}px` : ""));
    body.parentElement.style.tableLayout = widths.length ? "fixed" : "";
  };
  let frozen = false;
  addEventListener("resize", () => {
    if (frozen) freeze([]);
    frozen = false;
  });

  const sort = (head) => {
    const numeric = head.dataset.sort === "number";
    const was = head.getAttribute("aria-sort");
    const down = was ? was === "ascending" : numeric; // numbers begin with the largest, texts with A
    const values = keysOf(columns.indexOf(head), numeric);
    const order = numeric ? (a, b) => values.get(a) - values.get(b) : (a, b) => collator.compare(values.get(a), values.get(b));
    if (!frozen && cols.length) freeze(columns.map((column) => column.getBoundingClientRect().width));
    frozen = true;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...rows].sort(down ? (a, b) => order(b, a) : order));
  };

  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head));
    head.append(button);
  }

  // What the button would do to the tasks that the filter leaves.
  const all = document.getElementById("all");
  const offer = () => (all.textContent = details.some((one) => !one.hidden && !one.open) ? "Open all" : "Close all");

  const filter = document.getElementById("filter");
  const found = document.getElementById("found");
  const names = rows.map((row) => row.cells[0].textContent.toLowerCase());
  filter.hidden = rows.length < 2;
  filter.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    let count = 0;
    names.forEach((name, index) => {
      const shown = name.includes(wanted);
      count += shown;
      rows[index].hidden = details[index].hidden = !shown;
    });
    offer();
    found.value = wanted ? `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "";
  });

  all.hidden = rows.length < 2;
  all.addEventListener("click", () => {
    const open = all.textContent === "Open all";
    for (const one of details) if (!one.hidden) one.open = open;
    offer();
  });

  // Browsers of some years ago do not open what a link leads into.
  const reveal = () => {
    const one = document.getElementById(location.hash.slice(1))?.closest("details");
    if (one) {
      one.open = true;
      one.hidden = false;
    }
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
