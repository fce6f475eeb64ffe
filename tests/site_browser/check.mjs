// Opens every page of the documentation site in Chromium and prints, as JSON, what is wrong. Optional: needs playwright-core,
// axe-core and a Chromium (see CONTRIBUTING.md).
//
//   REPORT_NODE_MODULES=/somewhere/node_modules node check.mjs /usr/bin/chromium SITE [--shots FOLDER]
//
// For each page at desktop and phone width: requests to other hosts, script errors, serious findings of axe, horizontal scrolling of
// the page, broken links and anchors. Then a search. Exit code 1 if anything is wrong.
import { existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const modules = process.env.REPORT_NODE_MODULES;
const require = createRequire(modules ? join(modules, "x.js") : import.meta.url);
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

const args = process.argv.slice(2);
const at = args.indexOf("--shots");
const shots = at >= 0 ? args.splice(at, 2)[1] : null;
const [executablePath, folder] = args;
const site = resolve(folder);
const QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const files = (dir) => readdirSync(dir).flatMap((name) => {
  const path = join(dir, name);
  if (statSync(path).isDirectory()) return name.startsWith("_") || name.startsWith(".") ? [] : files(path);
  return path.endsWith(".html") ? [path] : [];
});

const pages = files(site);
const browser = await chromium.launch({ executablePath, args: QUIET, chromiumSandbox: false });
const findings = new Set();
const ids = new Map(); // page -> its anchors
const links = []; // [page, target, anchor]
let requests = 0;

for (const [width, height, colorScheme] of [[1280, 900, "light"], [390, 844, "dark"]]) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  let where = "";
  const wrong = (what) => findings.add(`${where}: ${what}`);
  page.on("request", (r) => { if (!/^(file|data|blob):/.test(r.url())) { requests++; wrong(`request to ${r.url()}`); } });
  page.on("pageerror", (e) => wrong(`script: ${e.message}`));
  page.on("console", (m) => { if (m.type() === "error") wrong(`console: ${m.text()}`); });
  for (const path of pages) {
    const name = relative(site, path);
    where = `${name} ${width}`;
    await page.goto(pathToFileURL(path).href);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) wrong(`the page is ${wide} pixels wide`);
    for (const alt of await page.$$eval("img", (images) => images.filter((i) => !i.naturalWidth).map((i) => i.alt))) wrong(`missing image: ${alt}`);
    await page.addScriptTag({ path: axe });
    const result = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"], preload: false }));
    for (const v of result.violations) {
      if (["serious", "critical"].includes(v.impact)) wrong(`axe ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join(", ")}`);
    }
    if (!ids.has(path)) {
      ids.set(path, new Set(await page.$$eval("[id]", (all) => all.map((e) => e.id))));
      for (const href of await page.$$eval("a[href]", (all) => all.map((a) => a.href))) {
        const url = new URL(href);
        if (url.protocol === "file:") links.push([name, fileURLToPath(new URL(url.pathname, "file://")), decodeURIComponent(url.hash.slice(1))]);
      }
    }
    if (shots && /^(index|[a-z]+\/(index|first_run|metrics|data)|reference\/generated\/(commands|configuration\/(method|evaluator)))\.html$/.test(name)) {
      mkdirSync(shots, { recursive: true });
      await page.screenshot({ path: join(shots, `${name.replaceAll("/", "_")}_${width}.png`) });
    }
  }
  where = `search ${width}`;
  await page.goto(`${pathToFileURL(join(site, "search.html")).href}?q=linear+probe`);
  await page.waitForSelector("#search-results li", { timeout: 10000 }).catch(() => wrong("no result"));
  const first = await page.$("#search-results li a");
  if (first) {
    await first.click();
    await page.waitForLoadState();
    if (page.url().includes("search.html")) wrong("a result does not open");
  }
  await context.close();
}
await browser.close();

let broken = 0;
for (const [name, target, anchor] of links) {
  const missing = !existsSync(target) || (anchor && ids.has(target) && !ids.get(target).has(anchor));
  if (missing) { broken++; findings.add(`${name}: broken link to ${relative(site, target)}#${anchor}`); }
}
console.log(JSON.stringify({ pages: pages.length, links: links.length, broken, requests, findings: [...findings] }, null, 2));
process.exit(findings.size ? 1 : 0);
