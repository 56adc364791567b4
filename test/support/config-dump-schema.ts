/** Compares a `/config_dump` with what its readers expect (`test/conformance/config-dump.schema.yaml`). */
import { readFileSync } from 'node:fs';
import { Ajv, type ErrorObject } from 'ajv';
import { parse } from 'yaml';

const SCHEMA = new URL('../conformance/config-dump.schema.yaml', import.meta.url);

const validate = new Ajv({ allErrors: true, strict: true, strictTypes: false, strictTuples: false }).compile(
  parse(readFileSync(SCHEMA, 'utf8')) as object,
);

/** One line per deviation: where, and what is wrong there. */
export function schemaErrors(dump: unknown): readonly string[] {
  return validate(dump) ? [] : (validate.errors ?? []).map(errorText);
}

function errorText({ instancePath, message, params }: ErrorObject): string {
  return `${instancePath} ${message} ${JSON.stringify(params)}`;
}
