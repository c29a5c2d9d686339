// The checks of answers.py with the official OpenAI client library for Node. Usage: node answers.mjs BASE_URL/v1, of a router
// that answers.py started.
import OpenAI from "openai";
import assert from "node:assert/strict";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];

const moved = await client.chat.completions.create({ model: "redirects", messages });
assert.equal(moved.choices[0].message.content, "ok");
console.log("a redirect was followed to the router");

const began = performance.now();
await assert.rejects(client.chat.completions.create({ model: "busy", messages }), (error) => {
  const header = error.headers.get ? error.headers.get("retry-after") : error.headers["retry-after"];
  return error instanceof OpenAI.RateLimitError && header === "7";
});
const took = performance.now() - began;
assert(took < 1000, `429 after ${took} ms`);
console.log(`429 with Retry-After: 7 after ${took.toFixed(0)} ms`);

const pieces = [];
for await (const chunk of await client.chat.completions.create({ model: "m", messages, stream: true })) {
  pieces.push(chunk.choices[0].delta.content);
}
assert.deepEqual(pieces, ["Gr", "üße ", "🦙"]);
console.log("a stream with comments");

await assert.rejects(
  async () => {
    for await (const chunk of await client.chat.completions.create({ model: "dies", messages, stream: true })) void chunk;
  },
  (error) => error instanceof OpenAI.APIError && !String(error).includes("127.0.0.1"),
);
console.log("a cut stream is an error");

let last;
for (let i = 0; i < 8; i++) {
  const made = await client.responses.create({ model: "m", input: "hi", previous_response_id: last });
  assert.equal((await client.responses.retrieve(made.id)).id, made.id);
  last = made.id;
}
console.log("a chain of responses stayed on its worker");
console.log("OK");
