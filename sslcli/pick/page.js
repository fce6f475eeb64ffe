"use strict";
(() => {
  const $ = (selector) => document.querySelector(selector);
  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const { key, names, classes: known, have, store } = JSON.parse($("#picks").textContent);
  const articles = [...document.querySelectorAll("#stage article")];
  const n = names.length;

  // state: the class of each sample or null, all changes, and where we are
  let classes = [...known];
  let labels = names.map(() => null);
  const changes = [];
  let at = 0;
  let saved = true;

  const keep = () => {
    try { localStorage.setItem(store, JSON.stringify({ classes, labels })); } catch { /* a page from a file may have no storage */ }
  };
  const restore = () => {
    try {
      const old = JSON.parse(localStorage.getItem(store));
      if (!old || old.labels.length !== n) return;
      classes = [...new Set([...known, ...old.classes.map(String)])];
      labels = old.labels.map((label) => (classes.includes(label) ? label : null));
      at = Math.max(0, labels.indexOf(null));
      saved = labels.every((label) => label === null);
    } catch { /* nothing was kept */ }
  };

  // classes that are digits have their own keys; others are numbered from 1, and 0 is the tenth
  const digits = () => classes.length > 0 && classes.every((name) => /^[0-9]$/.test(name));
  const keyOf = (i) => (digits() ? classes[i] : i < 10 ? String((i + 1) % 10) : "");
  const classOf = (pressed) => classes.find((_, i) => keyOf(i) === pressed);

  // ---------------------------------------------------------------------------------------------------------- draw
  const strip = articles.map((_, i) => {
    const button = make("button", { type: "button" }, String(i + 1));
    button.addEventListener("click", () => move(i));
    return button;
  });
  $("#strip").append(...strip);

  const draw = () => {
    articles.forEach((article, i) => { article.hidden = i !== at; });
    strip.forEach((button, i) => {
      button.className = labels[i] === null ? "" : "done";
      button.setAttribute("aria-label", `Sample ${i + 1}: ${labels[i] ?? "no label"}`);
      if (i === at) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    const done = labels.filter((label) => label !== null).length;
    $("#progress").textContent = `Sample ${at + 1} of ${n}; ${done} labeled${done && saved ? ", saved" : ""}`;
    const buttons = classes.map((name, i) => {
      const button = make("button", { type: "button", "aria-pressed": String(labels[at] === name) });
      if (keyOf(i)) button.append(make("kbd", {}, keyOf(i)));
      button.append(name);
      button.addEventListener("click", () => label(name));
      return button;
    });
    $("#classes").replaceChildren(...buttons, input);
  };

  const input = make("input", { type: "text", "aria-label": "New class", placeholder: "new class, then Enter", autocomplete: "off" });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") input.blur();
    if (event.key !== "Enter") return;
    for (const name of input.value.split(",").map((part) => part.trim())) {
      if (name && !classes.includes(name)) classes.push(name);
    }
    input.value = "";
    input.blur();
    keep();
    draw();
  });

  // ------------------------------------------------------------------------------------------------------- actions
  const move = (to) => {
    at = Math.min(n - 1, Math.max(0, to));
    draw();
  };
  const change = (i, to) => {
    changes.push([i, labels[i]]);
    labels[i] = to;
    saved = false;
    keep();
  };
  const label = (name) => {
    change(at, name);
    const after = [...labels.keys()].map((i) => (at + 1 + i) % n).find((i) => labels[i] === null);
    move(after ?? Math.min(at + 1, n - 1));
  };
  const undo = () => {
    const last = changes.pop();
    if (!last) return;
    labels[last[0]] = last[1];
    saved = false;
    keep();
    move(last[0]);
  };

  // ---------------------------------------------------------------------------------------------------------- save
  const number = (text) => text.trim() !== "" && Number.isFinite(Number(text));
  const cell = (text) => {
    const safe = /^[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(text) && !number(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = () => {
    const splits = have.some(([, , split]) => split);
    const fresh = names.map((name, i) => [name, labels[i], "train"]).filter((row) => row[1] !== null);
    const rows = [[key, "label", "split"], ...have, ...fresh];
    return rows.map((row) => row.slice(0, splits ? 3 : 2).map(cell).join(",")).join("\n") + "\n";
  };
  const save = () => {
    const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    make("a", { href: url, download: "labels.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    saved = true;
    draw();
  };

  const actions = {
    ArrowRight: () => move(at + 1), ArrowDown: () => move(at + 1), ArrowLeft: () => move(at - 1), ArrowUp: () => move(at - 1),
    Home: () => move(0), End: () => move(n - 1), u: undo, Backspace: undo, s: save,
    Delete: () => { change(at, null); draw(); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.target === input || event.altKey) return;
    const control = event.ctrlKey || event.metaKey;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = control ? { z: undo, s: save }[name] : actions[name];
    if (action) {
      event.preventDefault();
      action();
    } else if (!control && /^[0-9]$/.test(name)) {
      const chosen = classOf(name);
      if (chosen !== undefined) label(chosen);
    }
  });
  $("#save").hidden = false;
  $("#save").addEventListener("click", save);
  addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });

  restore();
  draw();
  if (!classes.length) input.focus();
})();
