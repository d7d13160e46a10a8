/** The page at /docs: reads openapi.json and shows it. It needs nothing from elsewhere, since a server may have no internet. */
export const DOCS_PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Bao: the API</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
  details { border: 1px solid color-mix(in srgb, currentColor 20%, transparent); border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
  summary { cursor: pointer; }
  code { font: 13px ui-monospace, monospace; }
  .method { display: inline-block; min-width: 3.5rem; font-weight: 600; }
  .muted { opacity: .65; }
  table { border-collapse: collapse; margin: .5rem 0; width: 100%; }
  td { border-top: 1px solid color-mix(in srgb, currentColor 15%, transparent); padding: .2rem .6rem .2rem 0; vertical-align: top; }
</style>
</head>
<body>
<h1>Bao</h1>
<p>The machine-readable description is <a href="openapi.json">openapi.json</a>.</p>
<main id="main">Loading …</main>
<script>
  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const typeOf = (schema) => {
    if (schema.$ref) return schema.$ref.split('/').at(-1);
    if (schema.anyOf) return schema.anyOf.map(typeOf).join(' | ');
    if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(' | ');
    if (schema.type === 'array') {
      const item = typeOf(schema.items ?? {});
      return item.includes(' | ') ? '(' + item + ')[]' : item + '[]';
    }
    if (Array.isArray(schema.type)) return schema.type.join(' | ');
    return schema.type ?? 'any';
  };
  const fieldTable = (fields) => {
    const table = element('table');
    for (const { name, schema, required } of fields) {
      const row = table.insertRow();
      row.insertCell().append(element('code', name + (required ? ' *' : '')));
      row.insertCell().append(element('code', typeOf(schema)));
      const notes = [schema.description, schema.default === undefined ? '' : 'Default: ' + JSON.stringify(schema.default)];
      row.insertCell().append(element('span', notes.filter(Boolean).join(' '), 'muted'));
    }
    return table;
  };
  const members = (schema, path) => {
    if (schema.anyOf) return schema.anyOf.flatMap((each) => members(each, path));
    if (schema.type === 'array') return members(schema.items ?? {}, path + '[]');
    return bodyFields(schema, path + '.');
  };
  const bodyFields = (schema, path = '') =>
    Object.entries(schema.properties ?? {}).flatMap(([name, field]) => [
      { name: path + name, schema: field, required: schema.required?.includes(name) },
      ...members(field, path + name),
    ]);
  const show = (api) => {
    const main = document.getElementById('main');
    main.replaceChildren(element('p', 'Version ' + api.info.version, 'muted'));
    for (const [path, operations] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(operations)) {
        const details = element('details');
        const summary = element('summary');
        summary.append(element('span', method.toUpperCase(), 'method'), element('code', path), ' ');
        summary.append(element('span', operation.summary ?? '', 'muted'));
        details.append(summary);
        if (operation.parameters) details.append(fieldTable(operation.parameters));
        const body = operation.requestBody?.content['application/json'].schema;
        for (const reference of body ? (body.anyOf ?? [body]) : []) {
          const name = typeOf(reference);
          details.append(element('p', name), fieldTable(bodyFields(api.components.schemas[name])));
        }
        main.append(details);
      }
    }
  };
  fetch('openapi.json').then((answer) => answer.json()).then(show).catch((error) => {
    document.getElementById('main').textContent = 'The description could not be read: ' + error;
  });
</script>
</body>
</html>
`;
