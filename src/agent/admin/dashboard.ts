/** The page at `/`: what the admin port offers, each with its method. Static, so nothing of a peer can get into it. */

interface Entry {
  readonly path: string;
  readonly description: string;
  /** A POST is a button: following a link must not change anything. */
  readonly isPost?: true;
}

const ENTRIES: readonly Entry[] = [
  { path: 'status', description: 'what this agent does now: pods, mesh source, certificates, connections' },
  { path: 'connections', description: 'open connections, and the latest refused ones with their reason' },
  { path: 'usage', description: 'what each workload has used: time, connections, handshakes, bytes; buffers now' },
  { path: 'explain', description: 'one connection, open or among the last 1024 that ended (?id=…)' },
  { path: 'config_dump', description: 'dump the current mesh state and configuration as JSON' },
  { path: 'logging', description: 'query or change logging levels', isPost: true },
  { path: 'debug/pprof/profile', description: 'build a CPU profile (pprof; ?seconds=10&frequency=100&thread=main)' },
  { path: 'debug/pprof/heap', description: 'collect a heap profile (pprof, gzip), if heap profiling is active' },
  { path: 'debug/pprof/heap/profiling', description: 'see whether heap profiling is active (?activate=true|false)' },
  { path: 'quitquitquit', description: 'shut down: drain connections, then exit', isPost: true },
];

export const DASHBOARD = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Culvert admin</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 52rem; padding: 0 1rem; color: #1d232a; }
  h1 { font-size: 1.3rem; }
  table { border-collapse: collapse; width: 100%; }
  th, td { text-align: left; padding: .45rem .6rem; border-bottom: 1px solid #d9dee4; vertical-align: baseline; }
  th { font-weight: 600; }
  td:first-child { white-space: nowrap; font-family: ui-monospace, monospace; font-size: .92em; }
  button { font: inherit; color: #0b57c2; background: none; border: 1px solid #b9c3ce; border-radius: 4px; cursor: pointer; }
  @media (prefers-color-scheme: dark) {
    body { background: #14181d; color: #dfe5ec; }
    th, td { border-color: #2c343d; }
    a, button { color: #7db4ff; }
    button { border-color: #465362; }
  }
</style>
</head>
<body>
<h1>Culvert admin</h1>
<table>
<thead><tr><th>Endpoint</th><th>Description</th></tr></thead>
<tbody>
${ENTRIES.map(row).join('\n')}
</tbody>
</table>
</body>
</html>
`;

function row({ path, description, isPost }: Entry): string {
  const control = isPost
    ? `<form method="post" action="${path}"><button>POST ${path}</button></form>`
    : `<a href="${path}">${path}</a>`;
  return `<tr><td>${control}</td><td>${description.replaceAll('&', '&amp;')}</td></tr>`;
}
