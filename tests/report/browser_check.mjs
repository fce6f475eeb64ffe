// Opens report pages in Chromium and prints the problems as JSON. Optional: needs playwright-core and axe-core
// (npm install --no-save playwright-core axe-core, anywhere) and a Chromium.
//
//   REPORT_NODE_MODULES=/somewhere/node_modules node browser_check.mjs /usr/bin/chromium PAGE.html [PAGE.html ...] [--shots FOLDER]
//
// For each page: requests that left it, errors of its script, serious findings of axe, widths at which the page itself scrolls
// sideways, and what the keyboard reached. Exit code 1 where anything is wrong.
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const modules = process.env.REPORT_NODE_MODULES;
const require = createRequire(modules ? join(modules, "x.js") : import.meta.url);
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

const args = process.argv.slice(2);
const at = args.indexOf("--shots");
const shots = at >= 0 ? args.splice(at, 2)[1] : null;
const [executablePath, ...pages] = args;
const QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const browser = await chromium.launch({ executablePath, args: QUIET, chromiumSandbox: false });
const findings = [];
for (const path of pages) {
  for (const [width, height, colorScheme] of [[1280, 900, "light"], [1280, 900, "dark"], [360, 740, "light"], [360, 740, "dark"]]) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme, bypassCSP: true, reducedMotion: "reduce" });
    const page = await context.newPage();
    const where = `${basename(dirname(path))} ${width} ${colorScheme}`;
    const wrong = (what) => findings.push(`${where}: ${what}`);
    page.on("request", (r) => { if (!/^(file|data|blob):/.test(r.url())) wrong(`asked for ${r.url()}`); });
    page.on("pageerror", (e) => wrong(`script: ${e.message}`));
    page.on("console", (m) => { if (m.type() === "error") wrong(`console: ${m.text()}`); });
    page.on("dialog", async (d) => { wrong(`a dialog: ${d.message()}`); await d.dismiss(); });
    await page.goto(pathToFileURL(path).href);
    for (const details of await page.$$("details")) await details.evaluate((d) => { d.open = true; });
    for (const alt of await page.$$eval("img", (images) => images.filter((i) => !i.naturalWidth).map((i) => i.alt))) {
      wrong(`an image does not show: ${alt}`);
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) wrong(`the page is ${wide} wide`);
    await page.addScriptTag({ path: axe });
    const result = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    for (const v of result.violations) {
      if (["serious", "critical"].includes(v.impact)) wrong(`axe ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join(", ")}`);
    }
    if (shots) {
      mkdirSync(shots, { recursive: true });
      for (const details of await page.$$("details")) await details.evaluate((d) => { d.open = false; });
      await page.screenshot({ path: join(shots, `${where.replaceAll(" ", "_")}.png`), fullPage: true });
    }
    await context.close();
  }

  // With its own policy in force, with its own policy: the keyboard alone
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const wrong = (what) => findings.push(`${basename(dirname(path))} keyboard: ${what}`);
  page.on("pageerror", (e) => wrong(`script: ${e.message}`));
  page.on("console", (m) => { if (m.type() === "error") wrong(`console: ${m.text()}`); });
  await page.goto(pathToFileURL(path).href);
  await page.keyboard.press("Tab");
  if (!(await page.evaluate(() => document.activeElement.className === "skip"))) wrong("the first stop is not the skip link");
  for (const selector of [".frame[role=slider]", "#feature-map .map-frame"]) {
    const target = await page.$(selector);
    if (!target) continue;
    await target.focus();
    const before = await target.getAttribute("aria-valuetext");
    for (const key of ["Home", "ArrowRight", "ArrowUp", "ArrowLeft"]) await page.keyboard.press(key);
    if ((await target.getAttribute("aria-valuetext")) === before) wrong(`${selector} does not heed the arrow keys`);
  }
  const sortable = await page.$("table.sortable thead th.number button");
  if (sortable) {
    await sortable.focus();
    await page.keyboard.press("Enter");
    if (!(await sortable.evaluate((b) => b.closest("th").hasAttribute("aria-sort")))) wrong("a table does not sort");
  }
  const enlarge = await page.$(".image button");
  if (enlarge) {
    await enlarge.focus();
    await page.keyboard.press("Enter");
    if (!(await page.evaluate(() => document.querySelector("dialog").open))) wrong("an image does not open");
    await page.keyboard.press("Escape");
    if (!(await enlarge.evaluate((b) => b === document.activeElement))) wrong("the focus does not come back from an image");
  }
  await page.focus("#theme");
  await page.keyboard.press("Enter");
  if (!(await page.evaluate(() => document.documentElement.dataset.theme))) wrong("the theme does not change");
  await page.close();
}
await browser.close();
console.log(JSON.stringify({ pages: pages.length, findings }, null, 2));
process.exit(findings.length ? 1 : 0);
