// Blobs: their layout, how one is made and served, how one is fetched (protocol, sections 5 and 6).

import { createHash } from "node:crypto";
import { encode } from "@msgpack/msgpack";
import { unpackBare } from "./wire.mjs";

const MAX_CHUNKS = 65536;
const WINDOW = 500; // chunks asked for at a time
const REPAIR_S = 2;
const REPAIR_MAX_S = 30;
const ITEM_BYTES = {
  float32: 4, float64: 8, float16: 2, int8: 1, int16: 2, int32: 4, int64: 8, uint8: 1, uint16: 2, uint32: 4, uint64: 8,
};

const sha256 = (data) => createHash("sha256").update(data).digest();
export const digest = (data) => sha256(data).toString("hex");

// How many chunks a stream has: those of the head, then those of the body.
function layout(ref) {
  const head = Math.ceil(ref.head_bytes / ref.chunk_bytes);
  const total = head + Math.ceil(ref.size / ref.chunk_bytes);
  if (total > MAX_CHUNKS) throw new Error(`a blob of ${total} chunks`);
  return { head, total };
}

// Where chunk `index` lies: in the head or in the body, from byte `from` to byte `to`.
function place(ref, index) {
  const { head } = layout(ref);
  const isHead = index < head;
  const from = (isHead ? index : index - head) * ref.chunk_bytes;
  return { isHead, from, to: Math.min(from + ref.chunk_bytes, isHead ? ref.head_bytes : ref.size) };
}

export function makeBlob(body, chunkBytes, spec) {
  const digests = [];
  for (let from = 0; from < body.length; from += chunkBytes) digests.push(sha256(body.subarray(from, from + chunkBytes)));
  const fields = { size: body.length, chunk_bytes: chunkBytes, digests: Buffer.concat(digests), spec };
  const head = Buffer.from(encode(fields));
  const ref = { id: digest(head), head_bytes: head.length, size: body.length, chunk_bytes: chunkBytes };
  return { ref, head, body };
}

export function chunkOf(blob, index) {
  const { isHead, from, to } = place(blob.ref, index);
  return { blob: blob.ref.id, index, data: (isHead ? blob.head : blob.body).subarray(from, to) };
}

export function bitmap(indexes) {
  const bits = Buffer.alloc(indexes.length ? (Math.max(...indexes) >> 3) + 1 : 0);
  for (const index of indexes) bits[index >> 3] |= 1 << (index & 7);
  return bits;
}

// The chunks that a Want names; bits past the end of the stream are ignored.
export function wanted(ref, bits) {
  const indexes = [];
  for (let index = 0; index < Math.min(layout(ref).total, bits.length * 8); index++)
    if (bits[index >> 3] & (1 << (index & 7))) indexes.push(index);
  return indexes;
}

export class Fetch {
  constructor(ref) {
    this.ref = ref;
    this.layout = layout(ref);
    this.head = Buffer.alloc(ref.head_bytes);
    this.body = Buffer.alloc(ref.size);
    this.held = new Uint8Array(this.layout.total);
    this.fields = null; // the head, once it is here and checked
    this.isOver = false; // whether the head hashes to its id and is no head: to ask again would change nothing
    this.gap = 0;
    this.silences = 0;
    this.lastNew = null;
    this.forget();
  }

  // What was asked for on an earlier connection is not to be expected on this one.
  forget() {
    this.asked = new Uint8Array(this.layout.total);
  }

  get isComplete() {
    return this.fields !== null && this.held.every((bit) => bit === 1);
  }

  // Returns the chunks to ask for now (seconds), [] for none.
  ask(now) {
    const patience = Math.min(Math.max(REPAIR_S, 8 * this.gap) * 2 ** this.silences, REPAIR_MAX_S);
    if (this.lastNew !== null && now - this.lastNew > patience) {
      this.forget();
      this.silences += 1;
      this.lastNew = now;
    }
    const end = this.fields ? this.layout.total : this.layout.head;
    const missing = [...Array(end).keys()].filter((index) => !this.held[index]);
    const open = missing.filter((index) => this.asked[index]).length;
    if (open > WINDOW / 2) return [];
    const next = missing.filter((index) => !this.asked[index]).slice(0, WINDOW - open);
    for (const index of next) this.asked[index] = 1;
    this.lastNew ??= now;
    return next;
  }

  // Takes a chunk; throws where it is wrong.
  take({ index, data }, now) {
    if (index >= this.layout.total) throw new Error("a chunk past the end of its stream");
    const { isHead, from, to } = place(this.ref, index);
    if (this.held[index] || (!isHead && !this.fields)) return;
    if (data.length !== to - from) throw new Error("a chunk of the wrong length");
    const body = index - this.layout.head;
    if (!isHead && !sha256(data).equals(this.#digestOf(body))) throw new Error("a chunk of the wrong digest");
    (isHead ? this.head : this.body).set(data, from);
    this.held[index] = 1;
    this.gap = 0.75 * this.gap + 0.25 * (now - this.lastNew);
    this.lastNew = now;
    this.silences = 0;
    if (isHead && this.held.subarray(0, this.layout.head).every((bit) => bit === 1)) this.#openHead();
  }

  #digestOf(body) {
    return Buffer.from(this.fields.digests.subarray(32 * body, 32 * body + 32));
  }

  #openHead() {
    if (digest(this.head) !== this.ref.id) {
      this.held.fill(0);
      this.forget();
      throw new Error("a head that does not hash to its id");
    }
    this.isOver = true;
    this.fields = checkedHead(this.ref, this.head);
    this.isOver = false;
    for (let index = this.layout.head; index < this.layout.total; index++) {
      const { from, to } = place(this.ref, index);
      // What is all zeros need not travel: the body is zeros already.
      if (sha256(Buffer.alloc(to - from)).equals(this.#digestOf(index - this.layout.head))) this.held[index] = 1;
    }
  }
}

function checkedHead(ref, bytes) {
  const head = unpackBare("Head", bytes);
  if (head.size !== ref.size || head.chunk_bytes !== ref.chunk_bytes) throw new Error("a head of another blob");
  if (head.digests.length !== 32 * Math.ceil(ref.size / ref.chunk_bytes)) throw new Error("too many or few digests");
  if (head.spec !== null) {
    const sizes = head.spec.map(({ shape, dtype }) => ITEM_BYTES[dtype] * shape.reduce((a, b) => a * b, 1));
    if (sizes.reduce((a, b) => a + b, 0) !== ref.size) throw new Error("tensors of another size, or an unknown dtype");
    if (new Set(head.spec.map(({ name }) => name)).size !== head.spec.length) throw new Error("a tensor's name twice");
  }
  return head;
}
