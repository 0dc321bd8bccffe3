/** Requests to the server: JSON, and answers that come event by event until they are done or aborted. */

const TAB = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function getJson(path, signal) {
  return read(await answerOf(path, { signal, headers: { "X-Steerlens-Tab": TAB } }));
}

/**
 * @param {string} path
 * @param {unknown} body
 * @param {{ signal?: AbortSignal, slot?: string }} [options] `slot`: a later request for it replaces this one
 * @returns {Promise<any>}
 */
export async function postJson(path, body, { signal, slot = "" } = {}) {
  return read(await post(path, body, signal, slot));
}

/**
 * Sends a file.
 * @param {string} path
 * @param {Blob} file
 * @returns {Promise<any>}
 */
export async function postFile(path, file) {
  const headers = { "X-Steerlens-Tab": TAB, "Content-Type": "application/octet-stream" };
  return read(await answerOf(path, { method: "POST", body: file, headers }));
}

/**
 * Asks for a stream of events. Aborting closes the connection, and that ends the work on the server.
 * @param {string} path
 * @param {unknown} body
 * @param {Record<string, (content: any) => void>} react by kind of event; `error` gets `{ message }`
 * @param {{ signal: AbortSignal, slot: string }} options
 * @returns {Promise<boolean>} whether it ran to its end
 */
export async function streamed(path, body, react, { signal, slot }) {
  try {
    const answer = await post(path, body, signal, slot);
    if (!answer.ok || !answer.body) return await read(answer);
    let ended = "";
    for await (const [kind, content] of events(answer.body)) {
      if (signal.aborted) return false;
      ended = kind;
      react[kind]?.(content);
    }
    return ended === "done";
  } catch (error) {
    if (!signal.aborted) react.error?.({ message: error instanceof Error ? error.message : String(error) });
    return false;
  }
}

/**
 * @param {string} path
 * @param {unknown} body
 * @param {AbortSignal | undefined} signal
 * @param {string} slot
 */
async function post(path, body, signal, slot) {
  const headers = { "Content-Type": "application/json", "X-Steerlens-Tab": TAB, "X-Steerlens-Slot": slot };
  return answerOf(path, { method: "POST", body: JSON.stringify(body), headers, signal });
}

/**
 * @param {string} path
 * @param {RequestInit} request
 */
async function answerOf(path, request) {
  try {
    return await fetch(path, request);
  } catch (error) {
    if (request.signal?.aborted) throw error;
    throw new Error("The server does not answer. Is steerlens app still running?", { cause: error });
  }
}

/** @param {Response} answer */
async function read(answer) {
  const content = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (!answer.ok || content?.error) throw new Error(content?.error ?? `The server answered ${answer.status}.`);
  return content;
}

/**
 * Server-sent events of a body.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<[kind: string, content: any]>}
 */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const parts = rest.split("\n\n");
    rest = parts.pop() ?? "";
    for (const part of parts) {
      const kind = /^event: (.*)$/m.exec(part);
      const data = /^data: (.*)$/m.exec(part);
      if (kind && data) yield [kind[1], JSON.parse(data[1])];
    }
  }
}

/** One request at a time: the next ends the one before. */
export class Latest {
  constructor() {
    this.controller = new AbortController();
  }

  /** Ends what runs, and returns the signal of what comes. */
  next() {
    this.controller.abort();
    this.controller = new AbortController();
    return this.controller.signal;
  }
}
