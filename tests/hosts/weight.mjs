// What the tools weigh in a prompt, in tokens of o200k: `weight.mjs TOOLS_JSON`, the result of `tools/list`.

import assert from "node:assert/strict";
import fs from "node:fs";
import { encode } from "gpt-tokenizer/encoding/o200k_base";

const MOST_GIVEN = 2000;
const MOST_LISTED = 4500;

const list = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const tokens = (value) => encode(JSON.stringify(value)).length;
// What hosts give to a model; they leave out titles, output schemas and annotations.
const given = list.tools.map(({ name, description, inputSchema }) => ({
  type: "function",
  function: { name, description, parameters: inputSchema },
}));
assert.ok(tokens(given) <= MOST_GIVEN, `a model is given ${tokens(given)} tokens`);
assert.ok(tokens(list) <= MOST_LISTED, `tools/list is ${tokens(list)} tokens`);
console.log(`weight: ${tokens(given)} tokens are given to a model, ${tokens(list)} are listed: ok`);
