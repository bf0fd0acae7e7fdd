// Looks at pages in a real Chromium. Each line of input is one request in JSON, {"check", "file", ...}; each line of
// output is its answer: {"result", "console", "requests"} or {"error"}. It ends where the input ends.
//
//   node driver.js FOLDER_OF_NODE_MODULES PATH_OF_CHROMIUM
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");

const [modules, executablePath] = process.argv.slice(2);
const installed = createRequire(path.join(modules, "from-here.js"));
const { chromium } = installed("playwright-core");
const axe = fs.readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");

const QUIET = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
];

// First cells of the rows in their order, and the aria-sort of each head that has one.
const order = (page) =>
  page.evaluate(() => ({
    names: [...document.querySelectorAll("tbody tr")].map((row) => row.cells[0].textContent),
    sorted: Object.fromEntries(
      [...document.querySelectorAll("th[aria-sort]")].map((head) => [head.textContent, head.getAttribute("aria-sort")]),
    ),
  }));

// Tab until an element with this text has the focus.
const tabTo = async (page, text) => {
  for (let step = 0; step < 200; step++) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate(() => document.activeElement.textContent)) === text) return;
  }
  throw new Error(`no Tab leads to ${text}`);
};

const openAll = (page) => page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));

const CHECKS = {
  // Nothing but what loading it does.
  look: async (page, { screenshot, open }) => {
    if (open) await openAll(page);
    if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
    return page.evaluate(() => ({
      width: document.documentElement.scrollWidth,
      paper: getComputedStyle(document.documentElement).backgroundColor,
      ink: getComputedStyle(document.body).color,
      title: document.title,
      table: (({ scrollWidth, clientWidth, tabIndex }) => ({ scrollWidth, clientWidth, tabIndex }))(document.querySelector(".scroll")),
      shown: [...document.querySelectorAll("button, input, .scroll, details[open] .chart")].map(
        (one) => `${one.tagName.toLowerCase()} ${one.checkVisibility()}`,
      ),
      overflow: getComputedStyle(document.querySelector(".scroll")).overflow,
    }));
  },

  // The accessibility rules that it breaks, and where.
  axe: async (page, { open }) => {
    if (open) await openAll(page);
    await page.evaluate(axe);
    return page.evaluate(async () => {
      const found = await window.axe.run(document);
      return found.violations.map((rule) => `${rule.id}: ${rule.nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`)}`);
    });
  },

  // The orders that keys bring about: [text of a head, key], one after the other.
  sort: async (page, { steps }) => {
    const orders = [await order(page)];
    let at = null;
    for (const [head, key] of steps) {
      if (at !== head) await tabTo(page, head);
      at = head;
      await page.keyboard.press(key);
      orders.push(await order(page));
    }
    return orders;
  },

  // What is left to see of the tasks after each text in the filter.
  filter: async (page, { texts }) => {
    const seen = [];
    for (const text of texts) {
      await page.getByLabel("Filter").fill(text);
      seen.push(
        await page.evaluate(() => ({
          rows: [...document.querySelectorAll("tbody tr")].filter((row) => row.checkVisibility()).map((row) => row.cells[0].textContent),
          details: [...document.querySelectorAll("summary h3")].filter((one) => one.checkVisibility()).map((one) => one.textContent),
          found: document.getElementById("found").textContent,
        })),
      );
    }
    return seen;
  },

  // Whether following the link of a task shows its histograms, and whether the buttons open and close all.
  open: async (page, { name }) => {
    const shown = () => page.evaluate((wanted) => [...document.querySelectorAll("details")].find((one) => one.querySelector("h3").textContent === wanted).open, name);
    const count = () => page.locator("details[open]").count();
    const seen = [await shown()];
    await page.getByRole("link", { name, exact: true }).click();
    seen.push(await shown());
    await page.getByRole("button", { name: "Open all" }).click();
    seen.push(await count());
    await page.getByRole("button", { name: "Close all" }).click();
    seen.push(await count());
    return seen;
  },

  // Which tasks are open: first; after "Open all" under the filter *text*; and without that, and what the button says
  // then; after all are opened, and closed.
  openFiltered: async (page, { text }) => {
    const opened = () => page.evaluate(() => [...document.querySelectorAll("details[open] h3")].map((one) => one.textContent).sort());
    const button = page.locator("#all");
    const seen = [await opened()];
    await page.getByLabel("Filter").fill(text);
    await button.click();
    seen.push(await opened());
    await page.getByLabel("Filter").fill("");
    seen.push([await opened(), await button.textContent()]);
    await button.click();
    seen.push(await opened());
    await button.click();
    seen.push(await opened());
    return seen;
  },

  // What is to be seen of the heads of the columns, from the left, and of those over several.
  heads: (page) =>
    page.evaluate(() => {
      const seen = (one) => one.checkVisibility({ visibilityProperty: true }) && one.innerText.trim();
      const sortable = [...document.querySelectorAll("th[data-sort]")].sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x);
      const text = (head) => {
        const copy = [...head.querySelectorAll(".unseen")].filter((one) => one.getBoundingClientRect().width <= 1);
        return copy.reduce((said, one) => said.replace(one.textContent, ""), head.textContent).replace(/\s+/g, " ").trim();
      };
      return { said: sortable.map(text), groups: [...document.querySelectorAll(".group")].filter(seen).map((one) => one.textContent) };
    }),

  // Widths of the columns before a sort and after it, and how the table is laid out then, in print, and in a narrower window.
  columns: async (page) => {
    const layout = () =>
      page.evaluate(() => ({
        widths: [...document.querySelectorAll("th[data-sort]")].map((head) => Math.round(head.getBoundingClientRect().width)),
        layout: getComputedStyle(document.querySelector("table")).tableLayout,
        page: document.documentElement.scrollWidth,
      }));
    const seen = [await layout()];
    await page.getByRole("button", { name: "Truncated" }).click();
    seen.push(await layout());
    await page.emulateMedia({ media: "print" });
    seen.push(await layout());
    await page.emulateMedia({ media: "screen" });
    await page.setViewportSize({ width: 720, height: 1000 });
    seen.push(await layout());
    return seen;
  },

  // Elements that only a name could have brought, and names as text.
  elements: (page, { selectors }) =>
    page.evaluate(
      (wanted) => ({
        counts: wanted.map((selector) => document.querySelectorAll(selector).length),
        names: [...document.querySelectorAll("tbody th")].map((head) => head.textContent),
        heads: [...document.querySelectorAll("summary h3")].map((head) => head.textContent),
        ran: window.ran ?? null,
      }),
      selectors,
    ),

  print: async (page, { pdf }) => {
    await page.pdf({ path: pdf, format: "A4" });
    await page.setViewportSize({ width: 720, height: 1000 }); // what A4 with its margins has
    await page.emulateMedia({ media: "print" });
    return CHECKS.look(page, {});
  },

  // Milliseconds that a page with many tasks takes: for a sort (the script, and with layout), and the longest task
  // of the browser's main thread meanwhile, and while all is opened, and scrolled through.
  fluid: async (page) =>
    page.evaluate(async () => {
      const long = [];
      new PerformanceObserver((list) => long.push(...list.getEntries())).observe({ type: "longtask" });
      const frames = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 60)));
      const longest = async (act) => {
        await frames();
        long.length = 0;
        await act();
        await frames();
        await frames();
        return Math.round(Math.max(0, ...long.map((entry) => entry.duration)));
      };
      const heads = [...document.querySelectorAll("th button")];
      const sorts = [];
      const sorting = await longest(async () => {
        for (const head of heads) {
          const began = performance.now();
          head.click();
          sorts.push(performance.now() - began);
          await frames();
        }
      });
      const one = await longest(async () => {
        const last = [...document.querySelectorAll("details")].at(-1);
        last.open = true;
        last.scrollIntoView();
      });
      const all = await longest(async () => document.getElementById("all").click());
      const scrolling = await longest(async () => {
        for (let y = 0; y < 40_000; y += 1000) {
          scrollTo(0, y);
          await new Promise(requestAnimationFrame);
        }
      });
      const input = document.querySelector("input");
      const filtering = await longest(async () => {
        for (const text of ["1", "12", "123", ""]) {
          input.value = text;
          input.dispatchEvent(new Event("input"));
          await frames();
        }
      });
      return { sort: Math.round(Math.max(...sorts)), sorting, one, all, scrolling, filtering };
    }),
};

const answer = async (browser, { check, file, scheme, width = 1280, height = 900, scripts = true, ...options }) => {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, javaScriptEnabled: scripts });
  const said = [];
  const requests = [];
  try {
    const page = await context.newPage();
    page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => said.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => {
      said.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("request", (request) => requests.push(request.url()));
    await page.goto(`file://${file}`);
    const result = await CHECKS[check](page, options);
    return { result, console: said, requests };
  } finally {
    await context.close();
  }
};

(async () => {
  const browser = await chromium.launch({ executablePath, args: QUIET });
  process.stdout.write(`${JSON.stringify({ version: browser.version() })}\n`);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const said = await answer(browser, JSON.parse(line)).catch((error) => ({ error: error.stack }));
    process.stdout.write(`${JSON.stringify(said)}\n`);
  }
  await browser.close();
})();
