/** (b) Enrolment: four running pods enter the mesh; no program notices. */
import type { Report } from '../report.ts';
import { MESHED, type Stage } from '../stage.ts';

export async function enrol(stage: Stage, report: Report): Promise<void> {
  report.step('b', 'Enrolment: one agent per node, four pods enter the mesh while their programs run');
  const before = stage.apps.map((app) => `${app.pod.name} ${app.pid}`).join('  ');
  const startMs = await Promise.all(stage.agents.map((agent) => agent.start()));
  const agents = stage.agents.map((agent, i) => `${agent.node.name}: pid ${agent.pid}, ready after ${ms(startMs[i])}`);
  report.claim('an agent is ready on each node', true, agents);

  const startedMs = performance.now();
  stage.enrol(MESHED);
  await stage.untilCaptured(MESHED);
  report.claim('four pods are captured', true, [
    `redirection and listeners in ${MESHED.join(', ')} ${ms(performance.now() - startedMs)} after they were listed`,
  ]);
  report.claim('every program is the process it was', isUntouched(stage), [
    `pids before: ${before}`,
    `pids now:    ${stage.apps.map((app) => `${app.pod.name} ${app.pid}`).join('  ')}`,
  ]);
}

export function isUntouched(stage: Stage): boolean {
  return stage.apps.every((app) => app.isSameProcess);
}

export function ms(value: number | undefined): string {
  return `${Math.round(value ?? 0)} ms`;
}
