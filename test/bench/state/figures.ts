/** What `npm run bench:state` measures, and what it should be. */
import type { MeshSize } from './big-mesh.ts';

export interface ControlPlaneAddress {
  readonly port: number;
  readonly rootPem: string;
}

export interface Task {
  readonly size: MeshSize;
  /** Absent: records are made in the measured process itself. */
  readonly controlPlane?: ControlPlaneAddress | undefined;
}

export interface Figures {
  readonly readyMs: number;
  readonly rssPerWorkload: number;
  readonly heapPerWorkload: number;
  readonly hopP50Us: number;
  readonly hopP99Us: number;
  /** From the change of the policy to the last connection it closes. */
  readonly rejudgeMs: number;
  readonly longestTurnMs: number;
  readonly longestTurnCpuMs: number;
}
