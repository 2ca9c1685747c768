-- The actions that a HyperliquidParser offers in its present state.
local spec = obj.spec or {}
local status = obj.status or {}
local actions = { restart = {} }

if spec.paused then
  actions["resume"] = {}
else
  actions["pause"] = {}
end

for _, c in ipairs(status.conditions or {}) do
  local soaks = c.type == "Reconciling" and c.reason == "CanarySoaking"
  local failed = c.type == "Stalled" and c.reason == "CanaryFailed"
  if c.status == "True" and (soaks or failed) then
    actions["promote"] = {}
  end
end

for _, loss in ipairs(status.losses or {}) do
  if not loss.acknowledged then
    actions["acknowledge-loss"] = {}
  end
end
return actions
