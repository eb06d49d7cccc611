// A Log Analytics workspace and Application Insights, which takes telemetry of the apps' identities alone.

param tags object
param location string
param prefix string
param retentionDays int
param publisherIds string[]

var metricsPublisher = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '3913510d-42f4-4e42-8a64-420c390055eb')

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: '${prefix}-logs'
  location: location
  tags: tags
  properties: { sku: { name: 'PerGB2018' }, retentionInDays: retentionDays }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: '${prefix}-insights'
  location: location
  tags: tags
  kind: 'web'
  properties: { Application_Type: 'web', DisableLocalAuth: true, WorkspaceResourceId: workspace.id }
}

resource publishes 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for publisher in publisherIds: {
    scope: insights
    name: guid(insights.id, publisher, metricsPublisher)
    properties: { principalId: publisher, principalType: 'ServicePrincipal', roleDefinitionId: metricsPublisher }
  }
]

output insightsName string = insights.name
