// The form is made of the API's document; content of the server is shown as text, never as markup.
const KEPT_ENTRIES = 500;
const get = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function choice(options, selected) {
  return element("select", {}, ...options.map((each) => new Option(each || "–", each, false, each === selected)));
}

async function send(path, body) {
  const reply = await fetch(path, { method: "POST", body });
  if (!reply.ok) get("status").value = await reply.text();
}

// ---- The API

function resolve(api, schema) {
  return schema?.$ref ? schema.$ref.slice(2).split("/").reduce((found, key) => found[key], api) : schema;
}

function nameOf(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(", ");
  const several = schema.oneOf ?? schema.anyOf;
  if (several) return several.map(nameOf).join(" or ");
  if (schema.items) return `list of ${nameOf(schema.items)}`;
  return [schema.type ?? "any"].flat().join(" or ");
}

function schemaDetails(name, schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([property, rule]) =>
    element("tr", {},
      element("td", {}, property + (schema.required?.includes(property) ? " *" : "")),
      element("td", {}, nameOf(rule)),
      element("td", {}, rule.description ?? "")));
  const shown = rows.length ? element("table", {}, element("tbody", {}, ...rows)) : element("p", {}, nameOf(schema));
  return element("details", {}, element("summary", {}, name), schema.description ?? "", shown);
}

// An example is an event of its own: sent again under its id, it would only be recognised.
function freshExample(value) {
  const event = structuredClone(value);
  if ("id" in event) event.id = crypto.randomUUID();
  if ("time" in event) event.time = new Date().toISOString();
  return JSON.stringify(event, null, 2);
}

function editBody(edit) {
  const body = get("body");
  try {
    const event = JSON.parse(body.value);
    edit(event);
    body.value = freshExample(event);
  } catch {
    get("status").value = "The body is not JSON.";
  }
}

function parameterField(api, parameter) {
  const schema = resolve(api, parameter.schema) ?? {};
  const values = schema.enum ?? (schema.type === "boolean" ? [true, false] : null);
  const input = values ? choice(["", ...values.map(String)]) : element("input", { autocomplete: "off" });
  input.id = input.name = `${parameter.in}-${parameter.name}`;
  return {
    parameter,
    input,
    shown: [
      element("label", { htmlFor: input.id }, parameter.name),
      input,
      element("p", {}, parameter.description ?? ""),
    ],
  };
}

function operation(api, path, method, described) {
  const fields = (described.parameters ?? []).map((each) => parameterField(api, resolve(api, each)));
  const content = resolve(api, described.requestBody)?.content ?? {};
  const type = choice(Object.keys(content));
  const example = element("select");
  const body = element("textarea", { id: "body", spellcheck: false, ariaLabel: "body" });
  const reply = element("pre", { id: "reply", hidden: true });
  type.id = "content-type";
  example.id = "example";

  const examples = () => content[type.value]?.examples ?? {};
  const fill = () => { body.value = freshExample(examples()[example.value]?.value ?? {}); };
  const list = () => { example.replaceChildren(...Object.keys(examples()).map((each) => new Option(each))); fill(); };
  type.addEventListener("change", list);
  example.addEventListener("change", fill);
  list();

  const button = element("button", { type: "button" }, "Send");
  button.addEventListener("click", async () => {
    button.disabled = true;
    reply.hidden = false;
    reply.textContent = "…";
    try {
      const query = new URLSearchParams();
      const headers = new Headers(type.value ? { "content-type": type.value } : {});
      for (const { parameter, input } of fields.filter(({ input }) => input.value)) {
        if (parameter.in === "query") query.set(parameter.name, input.value);
        if (parameter.in === "header") headers.set(parameter.name, input.value);
      }
      const answer = await fetch(`${path}${query.size ? `?${query}` : ""}`, {
        method: method.toUpperCase(), headers, body: body.value,
      });
      const known = new Set(Object.values(described.responses).flatMap((each) => Object.keys(each.headers ?? {})));
      const shown = ["content-type", ...known].filter((each) => answer.headers.has(each))
        .map((each) => `${each.toLowerCase()}: ${answer.headers.get(each)}`);
      let text = await answer.text();
      try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it is */ }
      reply.textContent = [`HTTP ${answer.status}`, ...shown, "", text].join("\n");
    } catch (error) {
      reply.textContent = String(error);
    }
    button.disabled = false;
  });

  const renew = element("button", { type: "button" }, "New id and time");
  renew.addEventListener("click", () => editBody(() => {}));

  const responses = Object.entries(described.responses).map(([status, each]) =>
    element("tr", {}, element("td", {}, status), element("td", {}, resolve(api, each).description)));
  return [
    element("h2", {}, `${method.toUpperCase()} ${path}`),
    element("p", {}, described.description ?? described.summary ?? ""),
    element("div", { className: "fields" },
      element("label", { htmlFor: "content-type" }, "content-type"), type,
      element("label", { htmlFor: "example" }, "example"), example),
    body,
    element("details", {}, element("summary", {}, "Parameters"),
      element("div", { className: "fields" }, ...fields.flatMap(({ shown }) => shown))),
    element("p", {}, button, " ", renew),
    reply,
    element("h3", {}, "Replies"),
    element("table", {}, element("tbody", {}, ...responses)),
  ];
}

async function showApi() {
  const api = await (await fetch("openapi.json")).json();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, described] of Object.entries(methods)) {
      get("api").append(...operation(api, path, method, described));
    }
  }
  get("api").append(element("h3", {}, "Schemas"),
    ...Object.entries(api.components.schemas).map(([name, schema]) => schemaDetails(name, schema)));
}

// ---- The endpoint services

async function showServices() {
  const services = await (await fetch("services")).json();
  get("services").replaceChildren(...Object.entries(services).map(([id, name]) => {
    const use = element("button", { type: "button", title: "write its id into the body" }, "use");
    use.addEventListener("click", () => editBody((event) => { (event.data ?? event).vpc_endpoint_service_id = id; }));
    return element("tr", {}, element("td", {}, id), element("td", {}, name), element("td", {}, use));
  }));
}

// ---- What happens

async function showState() {
  const { fault, faults, logs } = await (await fetch("state")).json();
  get("fault").replaceChildren(...Object.entries(faults).map(([name, text]) => {
    const option = new Option(name, name, false, name === fault);
    option.title = text;
    return option;
  }));
  get("logs").checked = logs;
}

function showEntry(entry) {
  const failed = entry.kind === "outcome" && entry.detail.type.includes("failed");
  const result = entry.kind === "outcome" ? (failed ? "failed" : "renamed") : entry.kind;
  const line = [
    `${new Date(entry.time * 1000).toTimeString().slice(0, 8)} `,
    element("span", { className: `kind ${result}` }, entry.kind),
    entry.text,
  ];
  const shown = entry.detail
    ? element("details", {}, element("summary", {}, ...line), element("pre", {}, JSON.stringify(entry.detail, null, 2)))
    : element("div", {}, ...line);
  const entries = get("entries");
  entries.prepend(element("li", {}, shown));
  while (entries.children.length > KEPT_ENTRIES) entries.lastChild.remove();
}

function follow() {
  const source = new EventSource("entries");
  let late = null;
  source.addEventListener("open", () => { get("status").value = "live"; showServices(); showState(); });
  source.addEventListener("error", () => { get("status").value = "not connected: is make up running?"; });
  source.addEventListener("message", ({ data }) => {
    const entry = JSON.parse(data);
    showEntry(entry);
    if (entry.kind === "fault") showState();
    late ??= setTimeout(() => { late = null; showServices(); }, 300);
  });
}

get("fault").addEventListener("change", ({ target }) => send("fault", target.value));
get("logs").addEventListener("change", ({ target }) => send("logs", target.checked ? "on" : "off"));
await showApi();
follow();
