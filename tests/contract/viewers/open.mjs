// Opens an OpenAPI document with the parsers of Redoc and of Swagger UI; ends with 1 where either complains.
import { readFile } from "node:fs/promises";
import redoc from "redoc";
import SwaggerClient from "swagger-client";

const document = await readFile(process.argv[2], "utf8");
const complaints = [];
console.warn = console.error = (...words) => complaints.push(words.join(" "));

const store = await redoc.createStore(JSON.parse(document));
const operations = store.menu.flatItems.filter((item) => item.type === "operation");
let examples = 0;
for (const operation of operations) {
  for (const body of [operation.requestBody, ...operation.responses]) {
    for (const mediaType of body.content?.mediaTypes ?? []) {
      if (!mediaType.schema) complaints.push(`Redoc: no schema of ${mediaType.name}`);
      examples += Object.keys(mediaType.examples ?? {}).length;
    }
  }
}
console.log(`Redoc: ${operations.length} operation, ${examples} examples`);

const { spec, errors } = await SwaggerClient.resolve({ spec: JSON.parse(document) });
complaints.push(...errors.map((error) => `Swagger UI: ${error.message}`));
if (JSON.stringify(spec).includes('"$ref"')) complaints.push("Swagger UI: unresolved references");
console.log(`Swagger UI: OpenAPI ${spec.openapi}, ${Object.keys(spec.paths).length} path, ${errors.length} errors`);

for (const complaint of complaints) console.log(complaint);
process.exit(complaints.length || !operations.length || !examples ? 1 : 0);
