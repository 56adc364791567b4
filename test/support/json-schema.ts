/** A JSON Schema of `test/conformance/`, kept as YAML, as a function that tells what deviates from it. */
import { readFileSync } from 'node:fs';
import { Ajv, type ErrorObject } from 'ajv';
import { parse } from 'yaml';

/** The function gives one line per deviation: where, and what is wrong there. */
export function schemaOf(name: string): (value: unknown) => readonly string[] {
  const file = new URL(`../conformance/${name}.schema.yaml`, import.meta.url);
  const validate = new Ajv({ allErrors: true, strict: true, strictTypes: false, strictTuples: false }).compile(
    parse(readFileSync(file, 'utf8')) as object,
  );
  return (value) => (validate(value) ? [] : (validate.errors ?? []).map(errorText));
}

function errorText({ instancePath, message, params }: ErrorObject): string {
  return `${instancePath} ${message} ${JSON.stringify(params)}`;
}
