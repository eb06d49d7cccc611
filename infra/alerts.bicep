// Mail when something needs a person: dead letters, messages that nobody takes, a database that is full, busy or away.

param tags object
param prefix string
param email string
param databaseId string
param namespaceId string
param appId string

var rules = [
  {
    name: 'dead-letters'
    text: 'A message came to a dead-letter queue: see the runbook, section dead-letters.'
    target: namespaceId
    metric: 'DeadletteredMessages'
    kind: 'Microsoft.ServiceBus/namespaces'
    limit: { operator: 'GreaterThan', threshold: 0, aggregation: 'Maximum' }
    severity: 2
  }
  {
    name: 'messages-wait'
    text: 'More than 10,000 messages wait: see the runbook, section messages-wait.'
    target: namespaceId
    metric: 'ActiveMessages'
    kind: 'Microsoft.ServiceBus/namespaces'
    limit: { operator: 'GreaterThan', threshold: 10000, aggregation: 'Minimum' }
    severity: 3
  }
  {
    name: 'database-storage'
    text: 'The database uses more than 80 % of its storage: see the runbook, section database-storage.'
    target: databaseId
    metric: 'storage_percent'
    kind: 'Microsoft.DBforPostgreSQL/flexibleServers'
    limit: { operator: 'GreaterThan', threshold: 80, aggregation: 'Average' }
    severity: 2
  }
  {
    name: 'database-cpu'
    text: 'The database used more than 90 % of its processors for a quarter of an hour: see the runbook, section database-cpu.'
    target: databaseId
    metric: 'cpu_percent'
    kind: 'Microsoft.DBforPostgreSQL/flexibleServers'
    limit: { operator: 'GreaterThan', threshold: 90, aggregation: 'Average' }
    severity: 3
  }
  {
    name: 'database-away'
    text: 'The database does not answer: see the runbook, section database-away.'
    target: databaseId
    metric: 'is_db_alive'
    kind: 'Microsoft.DBforPostgreSQL/flexibleServers'
    limit: { operator: 'LessThan', threshold: 1, aggregation: 'Maximum' }
    severity: 1
  }
  {
    name: 'requests-fail'
    text: 'The app answered more than 10 requests with a server error: see the runbook, section requests-fail.'
    target: appId
    metric: 'Http5xx'
    kind: 'Microsoft.Web/sites'
    limit: { operator: 'GreaterThan', threshold: 10, aggregation: 'Total' }
    severity: 2
  }
]

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: '${prefix}-people'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'coremachine'
    emailReceivers: [{ name: 'mail', emailAddress: email, useCommonAlertSchema: true }]
  }
}

resource alerts 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for rule in rules: {
    name: '${prefix}-${rule.name}'
    location: 'global'
    tags: tags
    properties: {
      description: rule.text
      enabled: true
      severity: rule.severity
      scopes: [rule.target]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT15M'
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            name: rule.name
            criterionType: 'StaticThresholdCriterion'
            metricNamespace: rule.kind
            metricName: rule.metric
            operator: rule.limit.operator
            threshold: rule.limit.threshold
            timeAggregation: rule.limit.aggregation
          }
        ]
      }
      actions: [{ actionGroupId: people.id }]
    }
  }
]
