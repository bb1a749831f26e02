// What a request is called elsewhere: as a curl command and as a Python program.

function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

export function curl(url, body) {
  return `curl -H 'Content-Type: application/json' -d ${shellQuoted(body)} ${shellQuoted(url)}`;
}

export function python(url, body) {
  // A JSON text is quoted as a Python one: every escape of JSON strings is one of Python's, lone surrogates aside.
  return [
    "import json",
    "import urllib.request",
    "",
    `body = ${JSON.stringify(body)}`,
    `request = urllib.request.Request(${JSON.stringify(url)}, body.encode(), {"Content-Type": "application/json"})`,
    "with urllib.request.urlopen(request) as response:",
    "    print(json.load(response))",
    "",
  ].join("\n");
}
