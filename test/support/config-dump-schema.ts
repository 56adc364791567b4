/** Compares a `/config_dump` with what its readers expect (`test/conformance/config-dump.schema.yaml`). */
import { schemaOf } from './json-schema.ts';

export const schemaErrors = schemaOf('config-dump');
