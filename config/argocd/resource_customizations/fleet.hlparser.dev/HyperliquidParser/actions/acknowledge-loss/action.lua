-- Acknowledges all losses that status.losses shows. Times are in UTC and to the second, so they compare as strings.
local newest = ""
for _, loss in ipairs((obj.status or {}).losses or {}) do
  if not loss.acknowledged and loss.since > newest then
    newest = loss.since
  end
end
if newest == "" then
  error("the object has no loss to acknowledge")
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["fleet.hlparser.dev/acknowledge-loss"] = newest
return obj
