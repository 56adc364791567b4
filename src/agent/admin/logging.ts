/** `POST /logging`: shows and changes the log filter. */
import { MeshError } from '../../base/errors.ts';
import { isLogLevel, LOG_SCOPES } from '../../telemetry/log-filter.ts';
import type { LogControl } from '../../telemetry/logger.ts';
import type { HttpAnswer, HttpRequest } from './http-server.ts';

const HELP = `
usage: POST /logging\t\t\t\t\t\t(To list current level)
usage: POST /logging?level=<level>\t\t\t\t(To change global levels)
usage: POST /logging?level={mod1}={level1},{mod2}={level2}\t(To change specific mods' logging level)
usage: POST /logging?reset\t\t\t\t\t(To go back to the level of the start; may be combined with level)

hint: loglevel:\terror|warn|info|debug|trace|off
hint: mod:\t${LOG_SCOPES.join('|')}
      \t":" may be used instead of "="
`;

export function answerLogging({ method, query }: HttpRequest, logging: LogControl): HttpAnswer {
  if (method !== 'POST') return text(405, `Invalid HTTP method\n${HELP}`);
  // Several `level` parameters: the last one wins. An empty one asks for the list.
  const level = query.getAll('level').at(-1) ?? '';
  const isReset = query.has('reset');
  if (level === '' && !isReset) return text(200, currentLine(logging));
  if (level !== '' && !level.split(',').every(isClause)) return text(400, `Invalid level provided: ${level}\n${HELP}`);
  try {
    logging.change(level, isReset);
    return text(200, currentLine(logging));
  } catch (error) {
    if (error instanceof MeshError) return text(400, `Failed to set new level: ${error.message}\n${HELP}`);
    throw error;
  }
}

function isClause(clause: string): boolean {
  return isLogLevel(clause) || /[=:]/.test(clause);
}

function currentLine(logging: LogControl): string {
  return `current log level is ${logging.current()}\n`;
}

function text(status: number, body: string): HttpAnswer {
  return { status, type: 'text/plain', body };
}
