// Streams a chat completion through the router with the official OpenAI client library for Node, asks for the same text
// without a stream, lists the models and makes one mistake. Usage: node check.mjs [http://127.0.0.1:30000/v1] [model]
import OpenAI from "openai";
import assert from "node:assert/strict";

const baseURL = process.argv[2] ?? "http://127.0.0.1:30000/v1";
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });

const models = await client.models.list();
const model = process.argv[3] ?? models.data[0].id;
console.log(`models: ${models.data.map((m) => m.id).join(", ")}`);

const question = {
  model,
  messages: [{ role: "user", content: "Why do sessions stay on one worker?" }],
  max_tokens: 24,
  temperature: 0,
  prompt_cache_key: "openai-node-check",
};

const stream = await client.chat.completions.create({ ...question, stream: true, stream_options: { include_usage: true } });
let streamed = "";
let chunks = 0;
let usage = null;
for await (const chunk of stream) {
  const piece = chunk.choices[0]?.delta?.content ?? "";
  if (piece) chunks++;
  streamed += piece;
  usage = chunk.usage ?? usage;
  process.stdout.write(piece);
}
process.stdout.write("\n");
assert(chunks > 1, "the text came in more than one piece");
assert(usage && usage.completion_tokens > 0, "usage came with the stream");
console.log(`streamed ${chunks} pieces; usage: ${JSON.stringify(usage)}`);

const { data: whole, response } = await client.chat.completions.create(question).withResponse();
assert.equal(whole.choices[0].message.content, streamed, "the same text without a stream");
for (const name of ["x-prefill-worker", "x-decode-worker", "x-worker", "x-request-id"]) {
  if (response.headers.get(name)) console.log(`${name}: ${response.headers.get(name)}`);
}

await assert.rejects(
  client.chat.completions.create({ model, messages: "not a list", max_tokens: 1 }),
  (error) => error instanceof OpenAI.APIError && error.status >= 400 && error.status < 500,
  "a wrong request arrives as the library's own exception",
);
console.log("OK");
