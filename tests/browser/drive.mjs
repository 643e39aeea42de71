// Does in a real Chromium what stdin says, one list of steps, and prints what was seen after each: address, title, text,
// what axe finds against WCAG A and AA, and what the browser complained of. Steps: {go}, {type: {label: text}},
// {write: text}, {choose: {label: path}}, {check: label}, {open: summary}, {focus: words}, {press: key}, {enter: true},
// {button: name}, {link: first words}, {print: file}; `picture` keeps a screenshot.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const { base, browser: executablePath, steps } = JSON.parse(readFileSync(0, "utf8"));
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath, args });
const page = await (await browser.newContext({ viewport: { width: 1100, height: 900 } })).newPage();
page.setDefaultTimeout(20000);
const complaints = [];
page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));

const following = (act) => Promise.all([page.waitForNavigation({ waitUntil: "load" }), act()]);
const doing = {
  go: (path) => page.goto(base + path),
  type: async (fields) => { for (const [label, text] of Object.entries(fields)) await page.getByLabel(label).fill(text); },
  choose: async (fields) => { for (const [label, path] of Object.entries(fields)) await page.getByLabel(label).setInputFiles(path); },
  check: (label) => page.getByLabel(label).check(),
  open: (name) => page.locator("summary", { hasText: new RegExp(`^${name}$`) }).click(),
  focus: (name) => page.locator("a, button, summary", { hasText: new RegExp(`^${name}$`) }).first().focus(),
  press: (key) => page.keyboard.press(key),
  enter: () => following(() => page.keyboard.press("Enter")),
  write: (text) => page.keyboard.type(text),
  button: (name) => following(() => page.getByRole("button", { name, exact: true }).click()),
  link: (name) => following(() => page.getByRole("link", { name: new RegExp(`^${name}( |$)`) }).click()),
  print: (path) => page.pdf({ path }),
};
const seen = [];
for (const { picture, ...step } of steps) {
  const [[what, value]] = Object.entries(step);
  await doing[what](value);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }));
  if (picture) await page.screenshot({ path: picture, fullPage: true });
  seen.push({
    address: page.url().slice(base.length),
    title: await page.title(),
    text: await page.locator("body").innerText(),
    focus: await page.evaluate(() => document.activeElement?.id || document.activeElement?.innerText || ""),
    violations: violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`),
    complaints: complaints.splice(0),
  });
}
await browser.close();
console.log(JSON.stringify(seen));
