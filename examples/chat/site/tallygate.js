// @ts-check
/**
 * Tallygate in a browser: client tokens that are fetched once, renewed in time and sent with every call, and answers read as they stream.
 *
 * No dependencies, one file: copy it beside your page, or bundle it.
 *
 *     import { connect } from "./tallygate.js";
 *     const tallygate = await connect();
 *     for await (const chunk of tallygate.stream("/v1/chat/completions", { model: "echo", messages })) show(chunk);
 *
 * @module
 */

/** @typedef {{ token: string, expiresAt: string }} Minted What `POST /v1/client-tokens` answers. */
/** @typedef {(() => Promise<Minted>) | string} TokenSource A function, or an address that answers POST with such an object. */
/** @typedef {{ call: string, model: string, charge_microusd: number, balance_microusd: number | null }} Receipt What a streamed call has cost; the balance is that of the end user's wallet, null without one. */
/** @typedef {{ event: string, data: string }} ServerEvent */

const ABOUT = "/.well-known/tallygate.json";
const LEAST_LEFT_MS = 5_000;

/** A refusal, by the gateway or by whoever makes tokens, in words for a person. `status` is 0 for one inside a stream. */
export class TallygateError extends Error {
  /** @param {string} message @param {{ status?: number, type?: string, requestId?: string | null, retryAfterSeconds?: number | null }} [facts] */
  constructor(message, { status = 0, type = "error", requestId = null, retryAfterSeconds = null } = {}) {
    super(message);
    this.name = "TallygateError";
    this.status = status;
    this.type = type;
    this.requestId = requestId;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Read the refusal that an answer is. @param {Response} response @returns {Promise<TallygateError>} */
  static async of(response) {
    const body = await response.text().catch(() => "");
    let said;
    try {
      said = JSON.parse(body).error;
    } catch {
      said = undefined;
    }
    const wait = Number(response.headers.get("retry-after") ?? NaN);
    return new TallygateError(typeof said === "string" ? said : (said?.message ?? `The answer was ${response.status}.`), {
      status: response.status,
      type: said?.type,
      requestId: response.headers.get("x-request-id"),
      retryAfterSeconds: Number.isFinite(wait) ? wait : null,
    });
  }
}

/**
 * Find the gateway of the page's app, and where its tokens are had: `/.well-known/tallygate.json` of the page's own origin says both.
 * What is given here is not asked for.
 *
 * @param {{ baseUrl?: string, tokens?: TokenSource }} [options] @returns {Promise<Tallygate>}
 */
export async function connect({ baseUrl, tokens } = {}) {
  if (baseUrl === undefined || tokens === undefined) {
    const response = await fetch(ABOUT);
    if (!response.ok) throw await TallygateError.of(response);
    const about = await response.json();
    baseUrl ??= about.baseUrl;
    tokens ??= about.tokens ?? undefined;
  }
  if (baseUrl === undefined || tokens === undefined) {
    throw new TallygateError("This app hands out no public tokens: switch `publicTokens` on in its manifest, or say where your own back end makes them.");
  }
  return new Tallygate(baseUrl, tokens);
}

/** A gateway, called with client tokens. Make one for a page, and share it. */
export class Tallygate {
  #baseUrl;
  #mint;
  /** @type {string | null} */ #token = null;
  #freshUntil = 0;
  #worksUntil = 0;
  /** @type {Promise<string> | null} */ #pending = null;
  /** @type {unknown} */ #refusal = null;
  #refusedUntil = 0;

  /** @param {string} baseUrl @param {TokenSource} tokens */
  constructor(baseUrl, tokens) {
    this.#baseUrl = baseUrl.replace(/\/+$/, "");
    this.#mint = typeof tokens === "string" ? () => mintAt(tokens) : tokens;
  }

  /**
   * Return a token that works. Callers that come together share one request for a new one; it is asked for when a fifth of the old one's time
   * is left, and nobody waits for it while the old one works.
   *
   * @param {{ signal?: AbortSignal | null }} [options] @returns {Promise<string>}
   */
  async token({ signal } = {}) {
    signal?.throwIfAborted();
    if (this.#token !== null && Date.now() < this.#freshUntil) return this.#token;
    const renewed = this.#renew();
    if (this.#token !== null && Date.now() < this.#worksUntil - LEAST_LEFT_MS) {
      renewed.catch(() => {});
      return this.#token;
    }
    return signal ? orAborted(renewed, signal) : renewed;
  }

  /**
   * Call a path of the gateway, as `fetch` does. A token that is refused (401) is replaced once and the call sent again, unless its body is a
   * stream, which cannot be.
   *
   * @param {string} path @param {RequestInit} [init] @returns {Promise<Response>}
   */
  async fetch(path, init = {}) {
    if (!/^\/(?!\/)/.test(path)) throw new TypeError("A path begins with one slash: a token goes to its own gateway and nowhere else.");
    const token = await this.token(init);
    const response = await this.#send(path, init, token);
    if (response.status !== 401 || init.body instanceof ReadableStream) return response;
    await response.body?.cancel();
    if (this.#token === token) this.#token = null;
    return this.#send(path, init, await this.token(init));
  }

  /**
   * Send JSON, and return the JSON that is answered; throws TallygateError for a refusal.
   *
   * @param {string} path @param {object} body @param {{ signal?: AbortSignal }} [options] @returns {Promise<any>}
   */
  async post(path, body, options = {}) {
    return (await this.#posted(path, body, options)).json();
  }

  /**
   * Send JSON with `stream: true`, and give what each event of the answer says, parsed, as it comes; throws TallygateError for a refusal, also for
   * one in the middle. `onReceipt` hears what the call has cost, shortly before the end. Leaving the loop, or `signal`, ends the call.
   *
   * @param {string} path @param {object} body @param {{ signal?: AbortSignal, onReceipt?: (receipt: Receipt) => void }} [options]
   * @returns {AsyncGenerator<any, void, void>}
   */
  async *stream(path, body, { signal, onReceipt } = {}) {
    const response = await this.#posted(path, { ...body, stream: true }, { signal });
    if (response.body === null) return;
    const heard = (/** @type {string} */ comment) => {
      const said = /^\s*tallygate (\{.*\})$/.exec(comment);
      if (said && onReceipt) onReceipt(JSON.parse(said[1]));
    };
    for await (const { event, data } of events(response.body, heard)) {
      if (data === "[DONE]") return;
      const said = JSON.parse(data);
      if (event === "error" || said.error) {
        const requestId = response.headers.get("x-request-id");
        throw new TallygateError(said.error?.message ?? "The answer ended with an error.", { type: said.error?.type, requestId });
      }
      yield said;
    }
  }

  /** @param {string} path @param {object} body @param {{ signal?: AbortSignal }} options */
  async #posted(path, body, { signal }) {
    const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
    const response = await this.fetch(path, init);
    if (!response.ok) throw await TallygateError.of(response);
    return response;
  }

  /** @param {string} path @param {RequestInit} init @param {string} token */
  #send(path, init, token) {
    const headers = new Headers(init.headers);
    headers.set("authorization", `Bearer ${token}`);
    return fetch(this.#baseUrl + path, { ...init, headers, credentials: "omit", redirect: "error" });
  }

  /** @returns {Promise<string>} */
  #renew() {
    if (this.#pending !== null) return this.#pending;
    if (Date.now() < this.#refusedUntil) return Promise.reject(this.#refusal);
    this.#pending = this.#renewed().finally(() => {
      this.#pending = null;
    });
    return this.#pending;
  }

  async #renewed() {
    const asked = Date.now();
    try {
      const minted = await this.#mint();
      const lifetime = lifetimeMs(minted);
      this.#worksUntil = asked + lifetime;
      this.#freshUntil = asked + lifetime * 0.8;
      this.#token = minted.token;
      return minted.token;
    } catch (refusal) {
      if (refusal instanceof TallygateError && refusal.retryAfterSeconds !== null) {
        this.#refusal = refusal; // asking again before would only be refused again
        this.#refusedUntil = asked + refusal.retryAfterSeconds * 1000;
      }
      throw refusal;
    }
  }
}

/** Ask an address for a token. @param {string} address @returns {Promise<Minted>} */
async function mintAt(address) {
  const response = await fetch(address, { method: "POST" });
  if (!response.ok) throw await TallygateError.of(response);
  return response.json();
}

/** How long a new token works, by its own two instants: a visitor's clock may be wrong by hours. @param {Minted} minted */
function lifetimeMs({ token, expiresAt }) {
  try {
    const { iat, exp } = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    if (exp > iat) return (exp - iat) * 1000;
  } catch {
    // not readable: then by the clock
  }
  return Date.parse(expiresAt) - Date.now();
}

/** @template T @param {Promise<T>} promise @param {AbortSignal} signal @returns {Promise<T>} */
function orAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
  });
}

/**
 * Read an event stream (WHATWG HTML, section 9.2), however its bytes are cut. `onComment` hears comment lines. An event without its empty line
 * was cut off, and is not given.
 *
 * @param {ReadableStream<Uint8Array>} body @param {(comment: string) => void} [onComment] @returns {AsyncGenerator<ServerEvent, void, void>}
 */
export async function* events(body, onComment = () => {}) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let rest = "";
  let event = "";
  /** @type {string[]} */ let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const lines = (rest + (value ?? "")).split(done ? /\r\n|\r|\n/ : /\r\n|\n|\r(?=[^\n])/); // a last CR may be half of a line's end
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield { event: event || "message", data: data.join("\n") };
          event = "";
          data = [];
          continue;
        }
        const [, name, text] = /** @type {RegExpExecArray} */ (/^([^:]*)(?:: ?([^]*))?$/.exec(line));
        if (name === "" && text !== undefined) onComment(text);
        else if (name === "event") event = text ?? "";
        else if (name === "data") data.push(text ?? "");
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {}); // whoever leaves early ends the call
  }
}
