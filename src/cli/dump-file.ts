/** A `/config_dump` that somebody saved, for example in a bug report. */
import { readFileSync } from 'node:fs';
import { messageOf } from '../base/errors.ts';
import { CliError, EXIT_FAILURE } from './exit-codes.ts';

const STDIN_FD = 0;

/** The JSON of `path`; `-` is standard input. */
export function readDumpFile(path: string): unknown {
  const name = path === '-' ? 'standard input' : path;
  const text = readText(path, name);
  try {
    return JSON.parse(text);
  } catch (error) {
    const cure = 'save one with: curl http://localhost:15000/config_dump';
    throw new CliError(EXIT_FAILURE, `${name} is not JSON, so it is not a config_dump; ${cure}`, { cause: error });
  }
}

function readText(path: string, name: string): string {
  try {
    return readFileSync(path === '-' ? STDIN_FD : path, 'utf8');
  } catch (error) {
    throw new CliError(EXIT_FAILURE, `cannot read ${name}: ${messageOf(error)}`, { cause: error });
  }
}
