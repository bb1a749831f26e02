// What a request is called elsewhere: as a curl command and as a Python program. A token is not copied; both take it from
// the environment.

function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

export function curl(url, body, needsToken) {
  const token = needsToken ? ' -H "Authorization: Bearer $TENSORGATE_TOKEN"' : "";
  return `curl -H 'Content-Type: application/json'${token} -d ${shellQuoted(body)} ${shellQuoted(url)}`;
}

export function python(url, body, needsToken) {
  // A JSON text is quoted as a Python one: every escape of JSON strings is one of Python's, lone surrogates aside.
  return [
    "import json",
    ...(needsToken ? ["import os"] : []),
    "import urllib.request",
    "",
    `body = ${JSON.stringify(body)}`,
    'headers = {"Content-Type": "application/json"}',
    ...(needsToken ? ['headers["Authorization"] = "Bearer " + os.environ["TENSORGATE_TOKEN"]'] : []),
    `request = urllib.request.Request(${JSON.stringify(url)}, body.encode(), headers)`,
    "with urllib.request.urlopen(request) as response:",
    "    print(json.load(response))",
    "",
  ].join("\n");
}
