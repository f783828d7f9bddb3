/* The table of all runs: sorting, filtering, paging. Text from the bundle is set with textContent only. */
(function () {
  "use strict";
  const data = window.aisdpRuns;
  const box = document.getElementById("runs");
  if (!data || !box) return;

  const PAGE = 50;
  const PLAIN = /^[0-9]{4,}-[A-Za-z0-9_-]+\.html$/;
  const kinds = data.columns.map((column) => column[1]);
  const outcome = data.columns.findIndex((column) => column[0] === "Outcome");
  const find = (name) => box.querySelector(".runs__" + name);
  const body = box.querySelector("tbody");
  const heads = Array.from(box.querySelectorAll("th"));
  const texts = data.rows.map((row) =>
    row.map((cell) => String(Array.isArray(cell) ? cell[0] : cell)).join("\n").toLowerCase());
  let order = data.rows.map((_, position) => position);
  let sorted = { column: -1, down: false };
  let first = 0;

  function shown(value) {
    if (value === null) return "—";
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  }

  function fill(cell, value, kind) {
    if (kind === "run") {
      const code = document.createElement("code");
      code.textContent = code.title = value[0];
      code.className = "run-id";
      if (value[1] !== null && PLAIN.test(value[1])) {
        const link = document.createElement("a");
        link.href = box.dataset.root + "runs/" + value[1];
        link.appendChild(code);
        cell.appendChild(link);
      } else cell.appendChild(code);
    } else if (kind === "number") {
      cell.className = "number";
      cell.textContent = shown(value);
    } else cell.textContent = value;
  }

  function matching() {
    const words = find("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = find("outcome").value;
    return order.filter((position) =>
      words.every((word) => texts[position].includes(word)) &&
      (!wanted || data.rows[position][outcome] === wanted));
  }

  function draw() {
    const found = matching();
    if (first >= found.length) first = 0;
    const rows = found.slice(first, first + PAGE).map((position) => {
      const row = document.createElement("tr");
      data.rows[position].forEach((value, column) => {
        const cell = document.createElement("td");
        fill(cell, value, kinds[column]);
        row.appendChild(cell);
      });
      return row;
    });
    body.replaceChildren(...rows);
    find("count").textContent = found.length + " of " + data.rows.length + " runs";
    find("place").textContent = found.length
      ? first + 1 + "–" + Math.min(first + PAGE, found.length) + " of " + found.length
      : "no run";
    find("previous").disabled = first === 0;
    find("next").disabled = first + PAGE >= found.length;
    find("pager").hidden = found.length <= PAGE;
  }

  function compare(left, right, column) {
    const a = data.rows[left][column];
    const b = data.rows[right][column];
    if (kinds[column] === "number") {
      if (a === null || b === null) return a === b ? left - right : a === null ? 2 : -2;
      return Math.sign(a - b);
    }
    const x = kinds[column] === "run" ? a[0] : a;
    const y = kinds[column] === "run" ? b[0] : b;
    const p = Number(x);
    const q = Number(y);
    if (x !== "" && y !== "" && !Number.isNaN(p) && !Number.isNaN(q)) return Math.sign(p - q);
    return x < y ? -1 : x > y ? 1 : 0;
  }

  function sort(column) {
    sorted = { column, down: sorted.column === column && !sorted.down };
    order.sort((left, right) => {
      const result = compare(left, right, column);
      if (Math.abs(result) === 2) return result; /* missing numbers come last either way */
      return (sorted.down ? -result : result) || left - right;
    });
    heads.forEach((head, position) => {
      if (position !== column) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    });
    first = 0;
    draw();
  }

  function move(by) {
    first += by;
    draw();
  }

  function restart() {
    first = 0;
    draw();
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(column));
    head.replaceChildren(button);
  });
  Array.from(new Set(data.rows.map((row) => row[outcome]))).sort().forEach((word) => {
    const option = document.createElement("option");
    option.value = option.textContent = word;
    find("outcome").appendChild(option);
  });
  find("filter").addEventListener("input", restart);
  find("outcome").addEventListener("change", restart);
  find("previous").addEventListener("click", () => move(-PAGE));
  find("next").addEventListener("click", () => move(PAGE));
  find("tools").hidden = false;
  draw();
})();
