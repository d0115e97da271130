// A chat in the browser: every message goes straight to the gateway, with a client token of this app.
import { connect, TallygateError } from "./tallygate.js";

const MODEL = "echo";

const form = /** @type {HTMLFormElement} */ (document.querySelector("#ask"));
const field = /** @type {HTMLTextAreaElement} */ (document.querySelector("#message"));
const button = /** @type {HTMLButtonElement} */ (document.querySelector("#send"));
const talk = /** @type {HTMLElement} */ (document.querySelector("#talk"));
const status = /** @type {HTMLElement} */ (document.querySelector("#status"));

/** @type {{ role: string, content: string }[]} */
const messages = [];
/** @type {Promise<import("./tallygate.js").Tallygate> | null} */
let gateway = null;
/** @type {AbortController | null} */
let call = null;

/** @param {string} role @param {string} text */
function show(role, text) {
  const said = document.createElement("p");
  said.className = role;
  said.textContent = text;
  talk.append(said);
  said.scrollIntoView({ block: "end" });
  return said;
}

async function answer() {
  call = new AbortController();
  button.textContent = "Stop";
  status.textContent = "";
  const shown = show("assistant", "");
  let text = "";
  try {
    gateway ??= connect();
    const { signal } = call;
    const onReceipt = (/** @type {import("./tallygate.js").Receipt} */ { charge_microusd }) => {
      status.textContent = `The last answer cost ${charge_microusd} millionths of a dollar.`;
    };
    for await (const chunk of (await gateway).stream("/v1/chat/completions", { model: MODEL, max_tokens: 1000, messages }, { signal, onReceipt })) {
      text += chunk.choices?.[0]?.delta?.content ?? "";
      shown.textContent = text;
    }
  } catch (error) {
    if (!call.signal.aborted) {
      if (!(error instanceof TallygateError)) gateway = null;
      status.textContent = error instanceof Error ? error.message : String(error);
    }
  } finally {
    call = null;
    button.textContent = "Send";
    if (text === "") {
      shown.remove();
      messages.pop();
    } else {
      messages.push({ role: "assistant", content: text });
    }
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (call !== null) {
    call.abort();
    return;
  }
  const text = field.value.trim();
  if (text === "") return;
  field.value = "";
  messages.push({ role: "user", content: text });
  show("user", text);
  void answer();
});

field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (call === null) form.requestSubmit();
  }
});
