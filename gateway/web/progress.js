// How far a job is. Pure.

/**
 * What its worker reported last (null: nothing), or else what is recorded. `eta` is in seconds, `rate` in steps/s.
 * Live frames have the members current_step and total_steps; the job's `live.progress` has step and steps.
 */
export function mergeProgress(job, live) {
  const reported = job.status === "running" ? (live ?? job.live?.progress ?? null) : null;
  return {
    step: Math.max(job.step, reported?.current_step ?? reported?.step ?? 0),
    steps: job.steps ?? reported?.total_steps ?? reported?.steps ?? 0,
    loss: reported?.loss ?? null,
    rate: reported?.rate ?? null,
    eta: reported?.eta ?? null,
    learningRate: reported?.learning_rate ?? null,
    message: reported?.message ?? "",
  };
}
