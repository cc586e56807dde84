// Encodings, the checks of messages (protocol, sections 3 and 4) and signatures (section 15).

import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { decode, encode } from "@msgpack/msgpack";

const NAME = /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/;
const BLOB_ID = /^[0-9a-f]{64}$/;
const TOKEN = /^[0-9a-f]{1,32}$/;
const COUNT = 2 ** 53 - 1;

// ---- types of fields: each returns whether a value is of the type ---------------------------

const integer = (least, most) => (value) => Number.isInteger(value) && value >= least && value <= most;
const number = (least, most) => (value) => Number.isFinite(value) && value >= least && value <= most;
const text = (least, most) => (value) =>
  typeof value === "string" && [...value].length >= least && [...value].length <= most;
const form = (pattern) => (value) => typeof value === "string" && pattern.test(value);
const bytes = (most) => (value) => value instanceof Uint8Array && value.length <= most;
const oneOf = (...words) => (value) => words.includes(value);
const flag = (value) => typeof value === "boolean";
const isMap = (value) =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
const list = (type, most) => (value) => Array.isArray(value) && value.length <= most && value.every(type);
const map = (key, type, most) => (value) =>
  isMap(value) && Object.keys(value).length <= most && Object.entries(value).every(([k, v]) => key(k) && type(v));
const orNil = (type) => (value) => value === null || type(value);

// A struct: its fields with their types, and the defaults of those that may be left out. Fills in the defaults.
function struct(fields, defaults = {}) {
  return (value) => {
    if (!isMap(value) || Object.keys(value).some((key) => !Object.hasOwn(fields, key))) return false;
    for (const [key, fallback] of Object.entries(defaults))
      if (!Object.hasOwn(value, key)) value[key] = structuredClone(fallback);
    return Object.entries(fields).every(([key, type]) => Object.hasOwn(value, key) && type(value[key]));
  };
}

const any = () => true;
const device = form(NAME);
const generation = form(TOKEN);
const round = integer(1, COUNT);
const ref = struct({
  id: form(BLOB_ID),
  head_bytes: integer(1, 2 ** 23),
  size: integer(0, 2 ** 34),
  chunk_bytes: integer(4096, 262144),
});
const choice = struct({ name: text(1, 100), options: map(text(1, 100), any, 64) }, { options: {} });
const training = struct(
  {
    epochs: integer(0, 10000),
    steps: integer(0, 1000000),
    batch_size: integer(1, 65536),
    learning_rate: (value) => number(0, 100)(value) && value > 0,
    seed: integer(0, 2 ** 32),
    evaluate: flag,
    proximal_mu: number(0, 1e6),
    clip_norm: number(0, 1e9),
    class_weights: flag,
    batch_norm: oneOf("averaged", "frozen", "local", "model"),
    personal: list(text(1, 200), 64),
    validation_share: number(0, 0.9),
    patience: integer(0, 10000),
  },
  {
    epochs: 2, steps: 0, batch_size: 16, learning_rate: 0.0005, seed: 0, evaluate: true, proximal_mu: 0, clip_norm: 0,
    class_weights: false, batch_norm: "model", personal: [], validation_share: 0, patience: 0,
  },
);

// What this device reads, by the name of its type.
const TYPES = {
  Chunk: struct({ blob: form(BLOB_ID), index: integer(0, 131072), data: bytes(262144) }),
  Want: struct({ device, blob: form(BLOB_ID), chunks: bytes(16384) }),
  Invite: struct({ device, round, generation, plan: bytes(65536) }),
  Receipt: struct({ device, round, generation, update: form(BLOB_ID) }),
  Result: struct({ device, round, generation, counted: flag, reason: text(0, 500) }, { reason: "" }),
  Refusal: struct({ device, round, generation, reason: text(0, 500) }),
  Takeover: struct({ device, nonce: form(TOKEN), by: form(TOKEN) }),
  Signed: struct({ body: bytes(262144), signature: text(0, 200) }),
  CoordinatorStatus: struct(
    { federation: form(NAME), epoch: form(TOKEN), state: oneOf("offline", "online"), refused: integer(0, COUNT),
      text: text(0, 500), others: integer(0, COUNT) },
    { refused: 0, text: "", others: 0 },
  ),
  RoundStatus: struct(
    {
      epoch: form(TOKEN), round: integer(0, COUNT),
      phase: oneOf("abandoned", "aggregating", "committed", "idle", "reporting", "selecting"),
      generation: form(TOKEN), model: orNil(ref), goal: integer(0, COUNT), minimum: integer(0, COUNT),
      invited: integer(0, COUNT), reported: integer(0, COUNT), text: text(0, 500),
    },
    { generation: "0", model: null, goal: 0, minimum: 0, invited: 0, reported: 0, text: "" },
  ),
  RoundPlan: struct(
    { round, generation, base: ref, model: choice, labels: list(text(1, 100), 1000), training,
      deadline_s: (value) => number(0, 1e7)(value) && value > 0 },
    { labels: ["no", "yes"], training: {}, deadline_s: 900 },
  ),
  Head: struct(
    {
      size: integer(0, 2 ** 34), chunk_bytes: integer(4096, 262144), digests: bytes(2 ** 21),
      spec: orNil(list(struct({ name: text(1, 200), shape: list(integer(0, 2 ** 31), 8), dtype: text(1, 200) }), 10000)),
    },
    { spec: null },
  ),
};

function checked(type, value) {
  if (!TYPES[type](value)) throw new Error(`no ${type} of this protocol`);
  return value;
}

// ---- encodings ------------------------------------------------------------------------------

// Bytes of a message on `say` or `up`. `fields` has no field that holds its default.
export const pack = (type, fields) => Buffer.from(encode({ type, ...fields }));

// Reads a message on `cmd` or `blob`; only the types in `expected` may come there.
export function unpack(payload, ...expected) {
  const { type, ...fields } = decode(payload);
  if (!expected.includes(type)) throw new Error(`${type} does not belong here`);
  return { type, ...checked(type, fields) };
}

// Reads a struct without a `type`: a plan, the head of a blob.
export const unpackBare = (type, payload) => checked(type, decode(payload));

export function readJson(type, payload, isSigned) {
  const { signature, ...fields } = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  if (isSigned !== (signature !== undefined)) throw new Error("the signature is not where it belongs");
  return checked(type, fields);
}

// ---- signatures -----------------------------------------------------------------------------

const signed = (topic, counter, message) =>
  Buffer.concat([Buffer.from(`fedpi signature 1\n${topic}\n${counter}\n`), message]);

export class Signer {
  // `pem`: the device's signing key (PKCS #8). `epoch`: a whole number above that of every earlier start.
  constructor(pem, epoch) {
    this.key = createPrivateKey(pem);
    this.epoch = epoch;
    this.sequence = 0;
  }

  #signature(topic, message, sequence) {
    const counter = `${this.epoch}.${sequence}`;
    return `${counter}.${sign(null, signed(topic, counter, message), this.key).toString("base64url")}`;
  }

  envelope(topic, message) {
    return pack("Signed", { body: message, signature: this.#signature(topic, message, ++this.sequence) });
  }

  // A JSON document with its signature in the last place; a will has the sequence 0.
  document(topic, fields, isWill = false) {
    const bare = JSON.stringify(fields);
    const signature = this.#signature(topic, Buffer.from(bare), isWill ? 0 : ++this.sequence);
    return Buffer.from(`${bare.slice(0, -1)},"signature":"${signature}"}`);
  }
}

const LAST_FIELD = /^(.*),"signature":"([^"\\]*)"\}$/s;
const SIGNATURE = /^(0|[1-9][0-9]{0,15})\.(0|[1-9][0-9]{0,15})\.([A-Za-z0-9_-]{86})$/;

export class Verifier {
  // `peers`: lines `NAME KEY`, where KEY is 32 bytes in base64. `heard`: topic -> [epoch, sequence], kept over restarts.
  constructor(peers, heard) {
    this.heard = heard;
    this.keys = peers
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .filter(([name]) => name === "coordinator")
      .map(([, key]) => createPublicKey({
        key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(key, "base64").toString("base64url") }, format: "jwk",
      }));
  }

  #check(topic, message, signature, isDocument) {
    const match = SIGNATURE.exec(signature);
    if (!match) throw new Error("not signed");
    const [, epoch, sequence, text] = match;
    const value = Buffer.from(text, "base64url");
    if (value.toString("base64url") !== text) throw new Error("a signature with bits to spare");
    const all = signed(topic, `${epoch}.${sequence}`, message);
    if (!this.keys.some((key) => verify(null, all, key, value)))
      throw new Error("a false signature");
    return [epoch, sequence, isDocument];
  }

  // A message must be above what was heard, a document may be the last one once more. Both numbers have up to 16 digits.
  #remember(topic, [epoch, sequence, isDocument], isWill) {
    const heard = (this.heard[topic] ?? ["0", "0"]).map(BigInt);
    if (sequence === "0") {
      if (!isWill || BigInt(epoch) < heard[0]) throw new Error("a will that does not count");
      return;
    }
    const ahead = BigInt(epoch) - heard[0] || BigInt(sequence) - heard[1];
    if (ahead < 0n || (ahead === 0n && !isDocument)) throw new Error("said before");
    this.heard[topic] = [epoch, sequence];
  }

  // Opens the envelope of a message on `cmd`; returns the message's bytes.
  open(topic, payload) {
    const { body, signature } = unpack(payload, "Signed");
    this.#remember(topic, this.#check(topic, Buffer.from(body), signature, false), false);
    return body;
  }

  // Reads a signed JSON document of `type`.
  read(type, topic, payload) {
    const match = LAST_FIELD.exec(payload.toString("utf-8"));
    if (!match) throw new Error("not signed");
    const seen = this.#check(topic, Buffer.from(`${match[1]}}`), match[2], true);
    const document = readJson(type, payload, true);
    this.#remember(topic, seen, type === "CoordinatorStatus" && document.state === "offline");
    return document;
  }
}
