// SPDX-License-Identifier: Apache-2.0
// The WebSocket to the robot: reconnects, acknowledges messages, and matches answers to requests.

const RETRY_SECONDS = [1, 2, 4, 8];
const REQUEST_SECONDS = 30;
const CODES = { wrongToken: 4401, slow: 4408, full: 4503 };

/**
 * Calls `on.hello(fields)`, `on.image(header, bitmap, arrived)`, `on.status(fields)`, `on.down(text, seconds)` when the
 * connection is lost, and `on.login(text)` when a token is needed.
 */
export class Connection {
  #on;
  #socket = null;
  #tries = 0;
  #token = "";
  #request = 0;
  #pending = new Map();
  #refused = "";
  #heard = performance.now();

  constructor(on) {
    this.#on = on;
  }

  /** Seconds since the last message from the robot. */
  get silence() {
    return (performance.now() - this.#heard) / 1000;
  }

  get isOpen() {
    return this.#socket !== null && this.#socket.readyState === WebSocket.OPEN;
  }

  /** Connect; `token` is sent if the robot requests it. */
  open(token) {
    this.#token = token;
    this.#refused = "";
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/socket`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => this.#receive(socket, event.data);
    socket.onclose = (event) => this.#closed(event);
    this.#socket = socket;
  }

  /** Send a request; resolves to {success, message}, also without an answer. */
  ask(type, fields) {
    if (!this.isOpen) return Promise.resolve({ success: false, message: "not connected to the robot: the request was not sent" });
    this.#request += 1;
    const request = this.#request;
    this.#send({ type, request, ...fields });
    return new Promise((resolve) => {
      const timer = setTimeout(
        () => this.#settle(request, { success: false, message: "no answer: the outcome is unknown" }),
        REQUEST_SECONDS * 1000,
      );
      this.#pending.set(request, { resolve, timer });
    });
  }

  #send(fields) {
    if (this.isOpen) this.#socket.send(JSON.stringify(fields));
  }

  #settle(request, answer) {
    const waiting = this.#pending.get(request);
    if (!waiting) return;
    this.#pending.delete(request);
    clearTimeout(waiting.timer);
    waiting.resolve(answer);
  }

  async #receive(socket, data) {
    this.#heard = performance.now();
    if (typeof data !== "string") {
      await this.#image(socket, data);
      return;
    }
    const fields = JSON.parse(data);
    if (fields.type === "login") {
      if (this.#token) this.#send({ type: "login", token: this.#token });
      else this.#askForToken("Ask the robot's operator for the token, or for a link that contains it.");
    } else if (fields.type === "hello") {
      this.#tries = 0;
      this.#on.hello(fields);
    } else if (fields.type === "status") {
      this.#send({ type: "ack", number: fields.number });
      this.#on.status(fields);
    } else if (fields.type === "answer") {
      this.#settle(fields.request, { success: fields.success, message: fields.message });
    }
  }

  /** Decode an image, then acknowledge it, so that a slow machine gets fewer images. */
  async #image(socket, data) {
    const length = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const arrived = performance.now();
    try {
      const bitmap = await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
      this.#on.image(header, bitmap, arrived);
    } finally {
      if (socket === this.#socket) this.#send({ type: "ack", number: header.number });
    }
  }

  #askForToken(text) {
    this.#refused = text;
    this.#socket.close();
    this.#on.login(text);
  }

  #closed(event) {
    this.#socket = null;
    for (const request of [...this.#pending.keys()]) {
      this.#settle(request, { success: false, message: "the connection was lost: the outcome is unknown" });
    }
    if (event.code === CODES.wrongToken) {
      this.#on.login(event.reason);
      return;
    }
    if (this.#refused) return;
    const seconds = RETRY_SECONDS[Math.min(this.#tries, RETRY_SECONDS.length - 1)];
    this.#tries += 1;
    this.#on.down(event.reason || "the robot does not answer at this address", seconds);
    setTimeout(() => this.open(this.#token), seconds * 1000);
  }
}
