// Opens DFINITY's Candid UI in headless Chromium and calls methods by their forms, as a person would.
//
// node browser.mjs CHROMIUM URL SCREENSHOT METHOD[=TEXT]...
//
// For each method, types TEXT into the first field of its form, presses its button and waits for the answer to be shown.
// Prints a JSON object: by method, the answer as the page's own JSON. Saves a screenshot of the last. Speaks the Chrome
// DevTools Protocol through a pipe (https://chromedevtools.github.io/devtools-protocol/, --remote-debugging-pipe), which
// needs no package.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const WAIT_MS = 60_000;
const LOOK_MS = 100;
const NUL = "\0";

const [chromium, url, screenshot, ...methods] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "candid-ui-"));
const browser = spawn(
  chromium,
  [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--window-size=1280,1600",
    `--user-data-dir=${profile}`,
    "--remote-debugging-pipe",
  ],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);

const waiting = new Map();
let lastId = 0;
let received = "";
browser.stdio[4].setEncoding("utf8");
browser.stdio[4].on("data", (text) => {
  received += text;
  for (let end = received.indexOf(NUL); end >= 0; end = received.indexOf(NUL)) {
    const message = JSON.parse(received.slice(0, end));
    received = received.slice(end + 1);
    const call = waiting.get(message.id);
    waiting.delete(message.id);
    if (call) message.error ? call.reject(new Error(message.error.message)) : call.resolve(message.result);
  }
});

let sessionId;
function send(method, params = {}) {
  lastId += 1;
  browser.stdio[3].write(JSON.stringify({ id: lastId, method, params, sessionId }) + NUL);
  return new Promise((resolve, reject) => waiting.set(lastId, { resolve, reject }));
}

// The value of an expression in the page.
async function value(expression) {
  const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, returnByValue: true });
  if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.text}`);
  return result.value;
}

async function until(what, expression) {
  for (const started = Date.now(); Date.now() - started < WAIT_MS; ) {
    const found = await value(expression);
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  throw new Error(`${what}: not within ${WAIT_MS} ms; the page says: ${await value("document.body.innerText")}`);
}

async function visit() {
  const { targetId } = await send("Target.createTarget", { url });
  ({ sessionId } = await send("Target.attachToTarget", { targetId, flatten: true }));
  const answers = {};
  for (const call of methods) {
    const [method, text] = call.split("=");
    const form = `document.getElementById(${JSON.stringify(method)})`;
    await until(`the form of ${method}`, `!!${form}?.querySelector("button")`);
    if (text) await value(`${form}.querySelector("input.argument").value = ${JSON.stringify(text)}`);
    await value(`${form}.querySelector("button").click()`);
    // The text is what a person sees first: it has to be there and visible.
    await until(`the answer of ${method}`, `${form}.querySelector(".text-result")?.innerText`);
    answers[method] = JSON.parse(await value(`${form}.querySelector(".json-result").textContent`));
    await value(`${form}.scrollIntoView()`);
  }
  const { data } = await send("Page.captureScreenshot", { format: "png" });
  writeFileSync(screenshot, Buffer.from(data, "base64"));
  return answers;
}

try {
  console.log(JSON.stringify(await visit()));
} finally {
  browser.kill();
  await new Promise((resolve) => (browser.exitCode === null ? browser.once("exit", resolve) : resolve()));
  rmSync(profile, { recursive: true, force: true });
}
