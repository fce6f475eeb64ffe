"use strict";
(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") node.className = value;
      else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  };

  // ---------------------------------------------------------------------------------------------------------- theme
  const theme = $("#theme");
  const themes = ["auto", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("sslcli-theme"); } catch { return null; } };
  const wear = (name) => {
    if (name === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", name);
    theme.textContent = `Theme: ${name}`;
    try { localStorage.setItem("sslcli-theme", name); } catch { /* a page from a file may have no storage */ }
  };
  let worn = themes.includes(stored()) ? stored() : "auto";
  theme.hidden = false;
  wear(worn);
  theme.addEventListener("click", () => {
    worn = themes[(themes.indexOf(worn) + 1) % themes.length];
    wear(worn);
  });

  // ------------------------------------------------------------------------------------------------------- contents
  const links = new Map(all(".contents a").map((a) => [a.hash.slice(1), a]));
  if ("IntersectionObserver" in window) {
    const visible = new Set();
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target.id);
      const here = [...links.keys()].findLast((id) => visible.has(id));
      for (const [id, link] of links) {
        if (id === here) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }, { rootMargin: "-10% 0px -60% 0px" });
    for (const id of links.keys()) observer.observe(document.getElementById(id));
  }

  // ----------------------------------------------------------------------------------------------------------- copy
  for (const block of all(".command")) {
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      const code = $("code", block);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }

  // --------------------------------------------------------------------------------------------------------- images
  const dialog = document.body.appendChild(make("dialog", { "aria-label": "image at its full size" }));
  for (const image of all(".image")) {
    const img = $("img", image);
    if (img.naturalWidth < 1.3 * img.clientWidth) continue;
    const button = make("button", { type: "button" }, "Enlarge");
    button.addEventListener("click", () => {
      const close = make("button", { type: "button" }, "Close");
      close.addEventListener("click", () => dialog.close());
      dialog.replaceChildren(close, make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "image" }, img.cloneNode()));
      dialog.showModal();
    });
    image.append(button);
  }

  // --------------------------------------------------------------------------------------------------------- curves
  const number = (value, percent) => {
    if (percent) return `${(100 * value).toFixed(1)} %`;
    if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
    return String(Number(value.toPrecision(4)));
  };
  for (const figure of all("[data-chart]")) {
    const chart = JSON.parse(figure.dataset.chart);
    const frame = $(".frame", figure), readout = $(".readout", figure), usual = readout.textContent;
    const steps = [...new Set(chart.lines.flatMap((line) => line.points.map((p) => p[0])))].sort((a, b) => a - b);
    const [low, high] = chart.x, [bottom, top] = chart.y;
    const cross = make("div", { class: "cross", hidden: "" });
    const dots = chart.lines.map((_, i) => make("div", { class: `dot l${i}`, hidden: "" }));
    frame.append(cross, ...dots);
    let at = steps.length - 1;
    const across = (x) => (high > low ? 100 * (x - low) / (high - low) : 50);
    const show = (index) => {
      at = Math.max(0, Math.min(steps.length - 1, index));
      const step = steps[at], said = [`step ${step.toLocaleString("en-US")}`];
      cross.hidden = false;
      cross.style.left = `${across(step)}%`;
      chart.lines.forEach((line, i) => {
        const near = line.points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
        dots[i].hidden = false;
        dots[i].style.left = `${across(near[0])}%`;
        dots[i].style.top = `${100 * (1 - (near[1] - bottom) / (top - bottom))}%`;
        said.push((chart.lines.length > 1 ? `${line.name} ` : "") + number(near[1], chart.percent));
      });
      readout.textContent = said.join("  ");
      frame.setAttribute("aria-valuenow", step);
      frame.setAttribute("aria-valuetext", said.join(", "));
    };
    const hide = () => {
      cross.hidden = true;
      for (const dot of dots) dot.hidden = true;
      readout.textContent = usual;
    };
    const attributes = { role: "slider", tabindex: "0", "aria-label": `${$("strong", figure).textContent}, by step`,
      "aria-valuemin": low, "aria-valuemax": high, "aria-valuenow": steps[at], "aria-valuetext": usual };
    for (const [key, value] of Object.entries(attributes)) frame.setAttribute(key, value);
    frame.addEventListener("pointermove", (event) => {
      const box = frame.getBoundingClientRect();
      const step = low + (high - low) * (event.clientX - box.left) / box.width;
      show(steps.reduce((best, s, i) => (Math.abs(s - step) < Math.abs(steps[best] - step) ? i : best), 0));
    });
    frame.addEventListener("pointerleave", () => { if (document.activeElement !== frame) hide(); });
    frame.addEventListener("focus", () => show(at));
    frame.addEventListener("blur", hide);
    frame.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.round(steps.length / 10));
      const moves = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
        PageDown: at - page, PageUp: at + page, Home: 0, End: steps.length - 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key]);
    });
  }

  // --------------------------------------------------------------------------------------------------------- tables
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table), body = $("tbody", table);
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const cell = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const numeric = head.classList.contains("number");
        const up = head.getAttribute("aria-sort") === (numeric ? "descending" : "ascending") ? numeric : !numeric;
        const rows = [...body.rows];
        rows.sort((a, b) => {
          const [x, y] = [cell(a), cell(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
          return up ? order : -order;
        });
        body.append(...rows);
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
      });
    });
  }

  // ------------------------------------------------------------------------------------------------------------ map
  const holder = $("#feature-map");
  if (!holder) return;
  const map = JSON.parse($("#map-data").textContent);
  const sprite = $("#map-sprite")?.src, layout = map.sprite, samples = $("#map-samples");
  const frame = $(".map-frame", holder), svg = $("svg", frame);
  const marks = all(".marks use", svg), names = $(".names", svg), side = $("#map-sample");
  const shape = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const over = svg.appendChild(shape("g", {}));
  let projection = 0, current = -1, only = -1, errors = false;
  const points = () => map.projections[projection].points;
  const className = (c) => (c >= 0 && c < map.classes.length ? map.classes[c] : "no label");
  const told = (i) => (map.predicted ? map.predicted[i] : -1);
  const wrong = (i) => told(i) >= 0 && map.labels[i] >= 0 && told(i) !== map.labels[i];
  const shows = (i) => (only < 0 || map.labels[i] === only) && (!errors || wrong(i));

  const thumb = (i, size) => {
    if (samples) return samples.content.children[i].cloneNode(true);
    const scale = size / Math.max(layout.width, layout.height);
    const node = make("div", { class: scale > 3 ? "thumb" : "thumb smooth", role: "img", "aria-label": `sample ${map.ids[i]}` });
    const w = layout.width * scale, h = layout.height * scale;
    Object.assign(node.style, { width: `${w}px`, height: `${h}px`, backgroundImage: `url(${sprite})`,
      backgroundSize: `${layout.columns * w}px ${layout.rows * h}px`,
      backgroundPosition: `${-(i % layout.columns) * w}px ${-Math.floor(i / layout.columns) * h}px` });
    return node;
  };
  const words = (i) => {
    const said = [];
    if (map.classes.length) said.push(className(map.labels[i]));
    if (wrong(i)) said.push(`${map.predicted_by} predicts ${className(told(i))}`);
    else if (told(i) >= 0 && map.labels[i] >= 0) said.push(`${map.predicted_by}: right`);
    said.push(map.names ? map.names[i] : `${map.split} sample ${map.ids[i]}`);
    return said;
  };
  const visit = (i) => {
    current = i;
    const [x, y] = points()[i];
    over.replaceChildren(
      ...map.near[i].map((j) => shape("line", { class: "near-line", x1: x, y1: y, x2: points()[j][0], y2: points()[j][1] })),
      ...map.near[i].map((j) => shape("circle", { class: "ring", r: 8, cx: points()[j][0], cy: points()[j][1] })),
      shape("circle", { class: "ring", r: 14, cx: x, cy: y }));
    const [first, ...rest] = words(i);
    const text = make("div", {}, make("p", {}, make("strong", {}, first)), ...rest.map((r) => make("p", {}, r)));
    const near = make("div", { class: "near", ...(samples ? { tabindex: "0", role: "region", "aria-label": "nearest samples" } : {}) }, ...map.near[i].map((j) =>
      make("span", {}, thumb(j, layout && layout.width > layout.height ? 60 : 40), make("small", {}, map.classes.length ? className(map.labels[j]) : ""))));
    side.replaceChildren(make("div", { class: "sample" }, thumb(i, 96), text, near));
    const beside = map.classes.length ? `; nearest: ${map.near[i].map((j) => className(map.labels[j])).join(", ")}` : "";
    frame.setAttribute("aria-valuenow", i + 1);
    frame.setAttribute("aria-valuetext", words(i).join(", ") + beside);
  };
  const leave = () => { over.replaceChildren(); };

  const draw = () => {
    points().forEach(([x, y], i) => { marks[i].setAttribute("x", x); marks[i].setAttribute("y", y); });
    names.replaceChildren(...map.projections[projection].centres.map(([c, x, y]) => {
      const node = shape("text", { x, y, "data-class": c });
      node.textContent = className(c);
      return node;
    }));
    $("#map-note").textContent = `${map.projections[projection].note}.`;
    dim();
    if (current >= 0) visit(current);
  };
  const dim = () => {
    marks.forEach((mark, i) => mark.classList.toggle("dim", !shows(i)));
    for (const name of names.children) name.classList.toggle("dim", only >= 0 && Number(name.dataset.class) !== only);
    if (current >= 0 && !shows(current)) visit(nearest(...points()[current]));
  };

  const switcher = holder.previousElementSibling, buttons = all("[data-projection]", switcher);
  switcher.hidden = all("button", switcher).length < 2;
  const faults = $("#map-wrong");
  if (faults) faults.addEventListener("click", () => {
    errors = !errors;
    faults.setAttribute("aria-pressed", String(errors));
    dim();
  });
  buttons.forEach((button, i) => button.addEventListener("click", () => {
    projection = i;
    buttons.forEach((b, j) => b.setAttribute("aria-pressed", String(i === j)));
    draw();
  }));
  for (const name of all(".legend .class-name", holder)) {
    const c = Number(name.dataset.class);
    const button = make("button", { type: "button", "aria-pressed": "false", class: "class-name" }, name.textContent);
    button.addEventListener("click", () => {
      only = only === c ? -1 : c;
      for (const other of all(".legend button", holder)) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(only === c));
      dim();
    });
    name.replaceWith(button);
  }
  const list = $(".legend", holder);
  if (list) list.removeAttribute("tabindex");  // its buttons are reached by keyboard

  const nearest = (x, y, at = points()) => {
    let best = -1, least = Infinity;
    at.forEach(([px, py], i) => {
      const d = (px - x) ** 2 + (py - y) ** 2;
      if (d < least && shows(i)) { least = d; best = i; }
    });
    return best;
  };
  const towards = (dx, dy) => {
    const [x, y] = points()[current];
    let best = -1, least = Infinity;
    points().forEach(([px, py], i) => {
      const along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      const cost = along + 2 * aside;
      if (i !== current && along > 0 && aside <= along && cost < least && shows(i)) { least = cost; best = i; }
    });
    return best >= 0 ? best : current;
  };
  const attributes = { role: "slider", tabindex: "0", "aria-label": "samples on the map; arrow keys walk to the nearest in that direction",
    "aria-valuemin": 1, "aria-valuemax": map.ids.length, "aria-valuenow": 1, "aria-valuetext": "none chosen" };
  for (const [key, value] of Object.entries(attributes)) frame.setAttribute(key, value);
  frame.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const i = nearest(at.x, at.y);
    if (i >= 0 && i !== current) visit(i);
  });
  frame.addEventListener("focus", () => { visit(current >= 0 ? current : nearest(500, 500)); });
  frame.addEventListener("blur", leave);
  frame.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") frame.blur();
    if (!(event.key in steps) || current < 0) return;
    event.preventDefault();
    visit(towards(...steps[event.key]));
  });
  visit(nearest(500, 500));
  leave();
})();
