/** A task of which one run is under way at a time: asked for meanwhile, it runs once more afterwards. */

/** `task` never rejects. It begins at once when none is under way. */
export function oneAtATime(task: () => Promise<void>): () => void {
  let isDue = false;
  let isUnderWay = false;
  const run = async (): Promise<void> => {
    isUnderWay = true;
    for (; isDue; await task()) isDue = false;
    isUnderWay = false;
  };
  return () => {
    isDue = true;
    if (!isUnderWay) void run();
  };
}
