-- Stops rollouts and restarts. Argo CD's self-heal undoes it if the manifest has the field paused.
obj.spec.paused = true
return obj
