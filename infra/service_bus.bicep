// The namespace, its queues, and who may use them. There are no keys: the namespace takes tokens of Entra ID alone.

import { queueNames } from 'types.bicep'

param tags object
param location string
param name string
@allowed(['Standard', 'Premium'])
param sku string
param jobsQueue string
param taskQueues queueNames
@description('The platform or standalone app: the janitor looks at every queue.')
param ownerId string
@description('Worker apps: each sends to every queue, and reads its own.')
param workerIds { id: string, queues: string[] }[]
@description('Empty for an endpoint that all of the internet can reach.')
param privateSubnetId string
param networkId string

var isPrivate = !empty(privateSubnetId)
var queues = concat([jobsQueue], map(items(taskQueues), queue => queue.value))
var dataOwner = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '090c5cfd-751d-490a-894a-3ce6f1109419')
var dataSender = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '69a216fc-b8fb-44d8-bc22-1f3c2cd27a39')
// The scale controller reads the length of a queue, which a receiver may not do.
var readings = flatten(map(workerIds, worker => map(worker.queues, queue => { id: worker.id, queue: taskQueues[queue] })))

resource namespace 'Microsoft.ServiceBus/namespaces@2024-01-01' = {
  name: name
  location: location
  tags: tags
  sku: { name: sku, tier: sku, capacity: sku == 'Premium' ? 1 : null }
  properties: {
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
  }

  resource queue 'queues' = [
    for queue in queues: {
      name: queue
      properties: {
        lockDuration: 'PT1M'
        maxDeliveryCount: 10
        deadLetteringOnMessageExpiration: true
        requiresDuplicateDetection: true
        duplicateDetectionHistoryTimeWindow: 'PT1M'
        requiresSession: false
        enablePartitioning: false
        // The rows are the truth: a message that waits for a worker for days is still wanted.
        defaultMessageTimeToLive: 'P14D'
      }
    }
  ]
}

resource ownsAll 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: namespace
  name: guid(namespace.id, ownerId, dataOwner)
  properties: { principalId: ownerId, principalType: 'ServicePrincipal', roleDefinitionId: dataOwner }
}

resource sends 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for worker in workerIds: {
    scope: namespace
    name: guid(namespace.id, worker.id, dataSender)
    properties: { principalId: worker.id, principalType: 'ServicePrincipal', roleDefinitionId: dataSender }
  }
]

resource readQueues 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' existing = [
  for reading in readings: {
    parent: namespace
    name: reading.queue
  }
]

resource reads 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for (reading, at) in readings: {
    scope: readQueues[at]
    name: guid(namespace.id, reading.queue, reading.id, dataOwner)
    properties: { principalId: reading.id, principalType: 'ServicePrincipal', roleDefinitionId: dataOwner }
    dependsOn: [namespace::queue]
  }
]

module endpoint 'endpoint.bicep' = if (isPrivate) {
  name: 'service-bus-endpoint'
  params: {
    tags: tags
    location: location
    name: name
    targetId: namespace.id
    group: 'namespace'
    zone: 'privatelink.servicebus.windows.net'
    subnetId: privateSubnetId
    networkId: networkId
  }
}

output id string = namespace.id
output host string = '${namespace.name}.servicebus.windows.net'
