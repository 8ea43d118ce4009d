// Runs the scenarios with the client that is named in the first argument, and judges each. More arguments are the names
// of those to run; without, all are.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { scenarios } from './scenarios.js';

const [CLIENT, ...names] = process.argv.slice(2);
const chosen = scenarios.filter(([name]) => !names.length || names.includes(name));
// The suite stops its client after this, and is stopped itself soon after.
const TIMEOUT_MS = 30_000;
const GRACE_MS = 10_000;
// What the client ends with when it was given a token that is bound to no key.
const REFUSED_BEARER = 3;

const manifest = createRequire(import.meta.url).resolve('@modelcontextprotocol/conformance/package.json');
const { bin, version } = JSON.parse(readFileSync(manifest));
const suite = join(dirname(manifest), bin.conformance);

function run(name, specVersion, directory) {
  const args = [suite, 'client', '--command', CLIENT, '--scenario', name];
  args.push('--timeout', String(TIMEOUT_MS), '--output-dir', directory);
  if (specVersion) args.push('--spec-version', specVersion, '--force');
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS + GRACE_MS);
    let told = '';
    child.stderr.on('data', (data) => (told += data));
    child.on('error', reject);
    child.on('close', (status) => {
      clearTimeout(timer);
      resolve({ status, told });
    });
  });
}

/** The one folder of results, however deep: the suite makes its name of the scenario's and the time. */
function results(directory) {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true });
  const checks = files.find((file) => file.name === 'checks.json');
  return checks && (checks.parentPath ?? checks.path);
}

async function judge([name, ends, ids, specVersion]) {
  const directory = mkdtempSync(join(tmpdir(), 'mcp-'));
  try {
    const { status, told } = await run(name, specVersion, directory);
    const folder = results(directory);
    if (!folder) return { wrong: [`no results: ${told.slice(-2000)}`] };
    const checks = JSON.parse(readFileSync(join(folder, 'checks.json')));
    const said = readFileSync(join(folder, 'stderr.txt'), 'utf8').trim();
    const counted = checks.filter((check) => check.status !== 'INFO');
    const passed = counted.filter((check) => check.status === 'SUCCESS');
    const wrong = counted
      .filter((check) => check.status !== 'SUCCESS')
      .map((check) => `${check.status} ${check.id}: ${check.errorMessage ?? check.description}`);
    for (const id of ids) {
      if (!passed.some((check) => check.id === id)) wrong.push(`not checked: ${id}`);
    }
    const exit = Number(/Client exited with code (\d+)/.exec(told)?.[1] ?? 0);
    const expected = { whole: [0], stops: [1], bearer: [REFUSED_BEARER] }[ends];
    if (!expected.includes(exit)) wrong.push(`the client ended with ${exit}: ${said}`);
    // The suite counts a refused token as a failure of the client.
    if ((status === 0) !== (ends !== 'bearer')) wrong.push(`the suite ended with ${status}`);
    const token = checks.find((check) => check.id.endsWith('valid-bearer-token'));
    if (token) wrong.push(`a token that is bound to no key was sent: ${token.id}`);
    return { wrong, passed: passed.length, said };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

console.log(`# @modelcontextprotocol/conformance ${version}, ${process.version}\n`);
console.log('| scenario | ends | checks passed | |\n|---|---|---|---|');
let failed = 0;
for (const scenario of chosen) {
  const [name, ends, , specVersion] = scenario;
  const { wrong, passed = 0, said = '' } = await judge(scenario);
  const title = specVersion ? `${name}, ${specVersion}` : name;
  const verdict = wrong.length ? `FAILED: ${wrong.join('; ')}` : said.replaceAll(/localhost:\d+/g, 'localhost');
  console.log(`| ${title} | ${ends} | ${passed} | ${verdict.replaceAll('|', '\\|').replaceAll('\n', ' ')} |`);
  failed += wrong.length ? 1 : 0;
}
console.log(`\n${chosen.length - failed} of ${chosen.length} scenarios ended as they should`);
process.exit(failed || !chosen.length ? 1 : 0);
