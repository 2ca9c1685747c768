-- The health of a HyperliquidParser. docs/gitops.md has the table of what it returns. The first match applies.
-- Argo CD runs it without the string library; messages are those of the object's own conditions.
local spec = obj.spec or {}
local status = obj.status or {}
local growth = spec.growth or {}

local function condition(kind)
  for _, c in ipairs(status.conditions or {}) do
    if c.type == kind then
      return c
    end
  end
  return {}
end

local function result(health, message)
  return { status = health, message = message or "" }
end

local generation = (obj.metadata or {}).generation
if status.observedGeneration == nil or status.observedGeneration ~= generation then
  return result("Progressing", "the operator has not seen this generation yet")
end

local stalled = condition("Stalled")
if stalled.status == "True" then
  return result("Degraded", stalled.message)
end

-- A false condition of these two is a fault, unless the operator may still cure it, or pods are only starting.
local reconciling = condition("Reconciling")
local restarts = not spec.paused and growth.action ~= "Alert"
local starts = reconciling.status == "True" and reconciling.reason ~= "RolloutStopped"
local passes = {
  Stuck = restarts,
  Growing = restarts,
  Leaking = restarts,
  NotRunning = starts,
}
local passing = nil
for _, kind in ipairs({ "Delivering", "BuffersStable" }) do
  local c = condition(kind)
  if c.status == "False" then
    if not passes[c.reason] then
      return result("Degraded", c.message)
    end
    passing = passing or c.message
  end
end
if passing ~= nil then
  return result("Progressing", passing)
end

if reconciling.status == "True" then
  return result("Progressing", reconciling.message)
end

local ready = condition("Ready")
if spec.paused then
  local message = ready.message
  if status.state == "Paused" then
    message = status.story
  end
  return result("Suspended", message)
end
if ready.status == "True" then
  return result("Healthy", ready.message)
end
if ready.status == "False" then
  return result("Degraded", ready.message)
end
return result("Progressing", ready.message)
