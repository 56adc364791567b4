/** What settings are read from, and what is said about a bad one. */

export type Environment = Readonly<Record<string, string | undefined>>;

export interface ConfigIssue {
  /** The flag or variable as the operator wrote it. */
  readonly setting: string;
  readonly problem: string;
}

/** How the agent was started, beside flags and environment. */
export interface Start {
  /** What holds for settings that nobody made: `ztunnel` when started as `proxy`, as the image of ztunnel is. */
  readonly defaults: 'culvert' | 'ztunnel';
  /** The command line after the program, for `/config_dump`. */
  readonly args: readonly string[];
  /** Content of a file, `undefined` when there is none. Throws when it cannot be read. */
  readonly readText: (path: string) => string | undefined;
  /** Absent: as small as can be. */
  readonly machine?: Machine;
}

/** What the machine gives us. */
export interface Machine {
  readonly cores: number;
  /** CPUs by our cgroup, for example 1.5; absent = no limit. */
  readonly cpuLimit?: number | undefined;
  /** What this process may use, the limit of its cgroup included. */
  readonly memoryMib: number;
}
