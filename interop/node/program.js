// What each of the programs does at its beginning and at its end.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

// The settings are one JSON text, the first argument. What is not known is refused: a misspelt setting would otherwise
// be a server that does something else than what the record says.
export function settings(defaults) {
  const given = JSON.parse(process.argv[2] ?? '{}');
  for (const name of Object.keys(given)) {
    if (!(name in defaults)) throw new Error(`there is no setting ${name}`);
  }
  return { ...defaults, ...given };
}

// Reads a JSON file of the state's directory, or makes it at the first start. It is written beside its place and
// renamed into it, so that a process killed in the middle leaves no half of a file.
export async function kept(directory, name, make) {
  const path = join(directory, name);
  if (!existsSync(path)) {
    mkdirSync(directory, { recursive: true });
    const beside = `${path}.${process.pid}`;
    writeFileSync(beside, JSON.stringify(await make()), { mode: 0o600 });
    renameSync(beside, path);
  }
  return JSON.parse(readFileSync(path, 'utf8'));
}

export function json(response, status, body, headers = {}) {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), ...headers });
  response.end(text);
}

// Listens, says so, and ends on SIGTERM.
export function serve(port, handle) {
  const server = createServer(async (request, response) => {
    // Node makes the value of `Date` once a second, by a clock that does not jump. When this machine's clock does,
    // answers would tell the old time for up to a second; no other server's would.
    response.setHeader('date', new Date().toUTCString());
    try {
      await handle(request, response);
    } catch (error) {
      // A request that makes no sense must not end the program.
      console.error(request.method, request.url, error);
      if (!response.headersSent) json(response, 400, { error: 'invalid_request', error_description: error.message });
    }
  });
  server.listen(port, '127.0.0.1', () => console.log('ready'));
  process.on('SIGTERM', () => process.exit(0));
  return server;
}
